"""How tokens are sampled, under vLLM's names. `docs/sampling.md` is the table of all fields.

Every field is of one thread. What vLLM counts over the output of a request (penalties, ``min_tokens``, ``max_tokens``,
``bad_words``, ``stop``, the state of a grammar) is counted over all that a thread sampled itself, however many requests
it took; its prompt is all else that it sees: the prompt of the trace, headers, its parent's tokens, what joins wrote.
Bounds on a whole trace are in `Limits`.
"""

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from parallel_reason.record import FrozenRecord

# Fields of vLLM's `SamplingParams` without a meaning for a thread of a trace, and why.
REFUSED = {
    "detokenize": "a trace has ids and text",
    "extra_args": "engines read none",
    "flat_logprobs": "a trace has its own format of log-probs",
    "include_stop_str_in_output": "a trace has every token that was sampled; its answer leaves the stop out",
    "logprob_token_ids": "use logprobs, for the most likely tokens",
    "output_kind": "use generate for whole traces and stream for events",
    "prompt_logprob_start": "use score",
    "prompt_logprob_token_ids": "use score",
    "prompt_logprobs": "use score, which gives the log-probs of given ids",
    "repetition_detection": "bound threads with max_tokens",
    "routed_experts_prompt_start": "experts are not recorded",
    "skip_clone": "it is internal to vLLM",
    "skip_reading_prefix_cache": "forks stand on the prefix cache",
    "skip_special_tokens": "control tokens are part of a thread's text",
    "spaces_between_special_tokens": "text is made by the tokenizer's own rule",
    "stream_interval": "a stream yields tokens as they come",
    "thinking_token_budget": "bound threads with max_tokens, below and threads",
    "trace_decode_token_ids": "use score, which gives the log-probs of given ids",
    "watermarking": "it is not offered",
}
LABEL = r"^0(\.\d+)*$"


def _listed(value: Any) -> Any:
    """One text as a list, as vLLM takes it; None as an empty one."""
    return [] if value is None else [value] if isinstance(value, str) else value


Texts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed)]
TokenIds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_listed)]
Number = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class StructuredOutputsParams:
    """The grammar of all that a thread samples, by one of these fields.

    A control token of the dialect, or an end of text, may come where the grammar may end; after it the thread is free.

    Attributes:
        json: a JSON schema, as an object or as its text.
        regex: a regular expression that the whole text matches.
        choice: texts of which it is one.
        grammar: rules in EBNF, from ``root`` on.
        json_object: True for any JSON object.
    """

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]
        given = [name for name in names if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(names)}, not {' and '.join(given) or 'none'}")


class SamplingParams(FrozenRecord):
    """Sampling parameters of the threads of a trace.

    Attributes:
        temperature: 0 is greedy.
        top_p, top_k: nucleus and top-k truncation; 1.0 and 0 turn them off.
        min_p: least probability of a token, as a share of the most likely one's; 0 turns it off.
        presence_penalty, frequency_penalty: taken from the logits of tokens that the thread sampled, once or each time.
        repetition_penalty: divides the positive logits, and multiplies the others, of all tokens that the thread sees.
        logit_bias: token id to what is added to its logit.
        allowed_token_ids: only these are sampled, if any are given; a dialect's own tokens must be among them.
        bad_words: texts of which the last token is never sampled.
        stop, stop_token_ids: a thread that sampled one of these ends as ``finished``, with it as the reason.
        max_tokens: sampled by one thread; None is no bound.
        min_tokens: sampled by one thread before it may end with an end of text or a stop; tags of a dialect may come
            sooner.
        ignore_eos: the model's own end of text ends nothing.
        structured_outputs: the grammar of all that a thread samples.
        lora: an adapter: a folder or Hub id, or for the openai engine the name under which servers have it.
        n: traces for each prompt.
        seed: makes sampling repeatable. The noise of every token is a function of the seed, the prompt, the sample
            number, the thread's label and the number of tokens that the thread sampled before, and of nothing else.
        logprobs: how many of the most likely tokens to return with their log-probs, for each sampled token; 0 returns
            the log-prob of the sampled token alone. All are of the model at temperature 1, whatever the fields above.
        below: of a thread's children and all below them; None for the same.
        threads: thread label, such as ``0.2``, to the parameters of that thread and all below it.
    """

    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: Annotated[int, BeforeValidator(lambda value: 0 if value == -1 else value)] = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    logit_bias: dict[Annotated[int, Field(ge=0)], Number] | None = None
    allowed_token_ids: TokenIds | None = Field(None, min_length=1)
    bad_words: Texts = ()
    stop: Texts = ()
    stop_token_ids: TokenIds = ()
    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int = Field(0, ge=0)
    ignore_eos: bool = False
    structured_outputs: StructuredOutputsParams | None = None
    lora: str | None = Field(None, min_length=1)
    n: int = Field(1, ge=1)
    seed: int | None = Field(None, ge=0)
    logprobs: int = Field(0, ge=0, le=20)
    below: "SamplingParams | None" = None
    threads: dict[Annotated[str, Field(pattern=LABEL)], "SamplingParams"] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _no_refused_field(cls, given: Any) -> Any:
        refused = [name for name in REFUSED if isinstance(given, dict) and name in given]
        if refused:
            raise ValueError(f"{refused[0]} has no meaning for a thread: {REFUSED[refused[0]]}")
        return given

    @model_validator(mode="after")
    def _consistent(self) -> "SamplingParams":
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens={self.min_tokens} is above max_tokens={self.max_tokens}")
        for inner in filter(None, (self.below, *self.threads.values())):
            for field in ("n", "seed", "threads"):
                if getattr(inner, field) != _defaults()[field]:
                    raise ValueError(f"{field} is of the whole trace: give it outside of below and threads")
        return self

    def of(self, label: str) -> "SamplingParams":
        """The parameters of the thread with this label; their ``below`` and ``threads`` are not for itself."""
        numbers = label.split(".")
        found = self.threads.get(numbers[0], self)
        for end in range(2, len(numbers) + 1):
            found = self.threads.get(".".join(numbers[:end]), found.below or found)
        return found

    def every(self) -> "Iterator[SamplingParams]":
        """It, and all parameters within."""
        yield self
        for inner in filter(None, (self.below, *self.threads.values())):
            yield from inner.every()

    def given(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        own = vars(self)
        return {name: own[name] for name, default in _defaults().items() if own[name] != default}

    @property
    def counts_output(self) -> bool:
        """Whether what is sampled next depends on all that the thread sampled before."""
        return bool(self.presence_penalty or self.frequency_penalty or self.structured_outputs)

    @property
    def changes_logits(self) -> bool:
        """Whether logits are changed before temperature and truncation, by a rule of one thread."""
        return bool(
            self.counts_output
            or self.repetition_penalty != 1
            or self.logit_bias
            or self.allowed_token_ids
            or self.bad_words
            or self.min_tokens
        )

    def name(self, field: str) -> str:
        """How a reason names a bound: ``sampling.max_tokens=20``."""
        return f"sampling.{field}={getattr(self, field)}"


@cache
def _defaults() -> dict[str, Any]:
    """Every field of `SamplingParams` and its default."""
    fields = SamplingParams.model_fields.items()
    return {name: field.get_default(call_default_factory=True) for name, field in fields}
