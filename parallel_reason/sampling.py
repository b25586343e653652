"""How tokens are sampled, under vLLM's names. Limits of length are in `Limits`, not here."""

from pydantic import Field

from parallel_reason.record import FrozenRecord


class SamplingParams(FrozenRecord):
    """Sampling parameters of every thread of a trace.

    Attributes:
        temperature: 0 is greedy.
        top_p, top_k: nucleus and top-k truncation; 1.0 and 0 turn them off.
        n: traces for each prompt.
        seed: makes sampling repeatable. The noise of every token is a function of the seed, the prompt, the sample
            number, the thread's label and the number of tokens that the thread sampled before, and of nothing else.
        logprobs: how many of the most likely tokens to return with their log-probs, for each sampled token; 0 returns
            the log-prob of the sampled token alone.
    """

    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    n: int = Field(1, ge=1)
    seed: int | None = Field(None, ge=0)
    logprobs: int = Field(0, ge=0, le=20)
