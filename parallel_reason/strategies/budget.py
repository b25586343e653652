"""What a strategy may spend, and how it is dealt out to paths that go on at once."""

from pydantic import Field

from parallel_reason.record import FrozenRecord


class Budget(FrozenRecord):
    """Bounds on one run of a strategy; None is no bound.

    Attributes:
        total_tokens: sampled by all paths, probes, judges and summaries together.
        critical_path: tokens sampled one after another: the longest chain of paths that waited for one another.
        deadline_s: seconds from the start; of live runs only.
    """

    total_tokens: int | None = Field(None, ge=1)
    critical_path: int | None = Field(None, ge=1)
    deadline_s: float | None = Field(None, gt=0, allow_inf_nan=False)

    def grant(self, paths: int, total_so_far: int, critical_so_far: int) -> int | None:
        """How many tokens each of ``paths`` may sample now, all at once; None without a bound."""
        bounds = []
        if self.total_tokens is not None:
            bounds.append((self.total_tokens - total_so_far) // max(paths, 1))
        if self.critical_path is not None:
            bounds.append(self.critical_path - critical_so_far)
        return max(0, min(bounds)) if bounds else None
