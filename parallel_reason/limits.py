"""Every bound of one trace.

A thread that reaches a bound ends with status ``length`` (or ``cancelled`` for the deadline and for children over the
bound of a fork) and a reason that names the bound, ``limits.tokens_per_thread=512``; what it wrote so far is kept.
"""

from pydantic import Field

from parallel_reason.record import FrozenRecord


class Limits(FrozenRecord):
    """Bounds of one trace; None means no bound but the model's own window.

    Attributes:
        threads: threads decoding at once; more of them queue.
        children: children of one fork; those beyond come back cancelled.
        forks: forks in the whole trace.
        depth: how deep threads may nest; 1 lets the root fork, 0 nobody.
        tokens_per_thread: sampled by one thread over all its spans; far above what a thread that ends by itself writes.
        tokens: sampled by all threads together.
        critical_path_tokens: sampled on the longest chain of threads that waited for one another.
        deadline_s: wall-clock seconds from the start of the trace.
        context: tokens of prompt and output that one thread may see, at most the model's window.
    """

    threads: int = Field(64, ge=1)
    children: int = Field(256, ge=1)
    forks: int = Field(64, ge=0)
    depth: int = Field(1, ge=0)
    tokens_per_thread: int | None = Field(32768, ge=1)
    tokens: int | None = Field(None, ge=1)
    critical_path_tokens: int | None = Field(None, ge=1)
    deadline_s: float | None = Field(None, gt=0)
    context: int | None = Field(None, ge=2)

    def name(self, field: str) -> str:
        """How a reason names a bound: ``limits.depth=1``."""
        return f"limits.{field}={getattr(self, field)}"
