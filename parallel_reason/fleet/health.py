"""What an engine may hold when it has no trace: no KV, and not much more memory than at first."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from parallel_reason.fleet.member import Member
from parallel_reason.fleet.messages import Integrity
from parallel_reason.fleet.metrics import FleetMetrics

log = logging.getLogger(__name__)
GROWTH = 2 << 30  # bytes by which an idle engine may exceed what it had when it was first idle


def leaks(found: Integrity, first_memory: int) -> list[str]:
    """What is wrong with an engine that is idle, in words; ``first_memory`` is what it had when it was first idle."""
    wrong = [] if found.kv_is_free else ["holds KV"]
    if found.memory > first_memory + GROWTH:
        wrong.append(f"has {(found.memory - first_memory) / (1 << 30):.1f} GiB more memory than at first")
    return wrong


@dataclass
class Health:
    """Of one engine.

    Attributes:
        worked: whether it had traces since it was last looked at.
    """

    member: Member
    metrics: FleetMetrics
    worked: bool = True
    _first: tuple[int, int] | None = None  # its process, and the memory that this had

    async def check_idle(self, within_s: float, still_idle: Callable[[], bool]) -> None:
        """Look once at an engine that is idle after work; a leak is logged as an error, and counted.

        Raises:
            Gone, TimeoutError: it does not answer.
        """
        if not self.worked:
            return
        self.worked = False
        found: Integrity = await self.member.call("integrity", within_s=within_s)
        if not still_idle():
            return
        if self._first is None or self._first[0] != self.member.pid:
            self._first = (self.member.pid, found.memory)
        for wrong in leaks(found, self._first[1]):
            self.metrics.leaked(self.member.number)
            log.error("%s (process %d) is idle, but %s: a leak", self.member.name, self.member.pid, wrong)
