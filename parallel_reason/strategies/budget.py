"""What a strategy may spend, and how it is dealt out to paths that go on at once."""

from pydantic import Field

from parallel_reason.limits import Limits
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

    def bound(self, limits: Limits, traces: int, total: int, critical: int, seconds: float) -> Limits | None:
        """The limits of each of so many traces that start now, within ``limits``; None where nothing is left.

        Args:
            total, critical, seconds: what was spent so far.
        """
        left = {
            "tokens": None if self.total_tokens is None else (self.total_tokens - total) // max(traces, 1),
            "critical_path_tokens": None if self.critical_path is None else self.critical_path - critical,
            "deadline_s": None if self.deadline_s is None else self.deadline_s - seconds,
        }
        if any(value is not None and value <= 0 for value in left.values()):
            return None
        own = {field: getattr(limits, field) for field in left}
        least = {field: min((v for v in (own[field], left[field]) if v is not None), default=None) for field in left}
        return limits.model_copy(update=least)
