"""How tokens are drawn. Limits of length are in `Limits`, not here."""

from pydantic import Field

from parallel_reason.noun import Setting


class SamplingParams(Setting):
    """Parameters of one request.

    Attributes:
        temperature: 0 is greedy.
        top_p, top_k: nucleus and top-k truncation; 1.0 and 0 turn them off.
        n: traces for each prompt.
        seed: makes sampling repeatable; every thread of every trace gets a seed derived from it.
    """

    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    n: int = Field(1, ge=1)
    seed: int | None = Field(None, ge=0)
