"""Early-Stopping Self-Consistency (ESC): windows of paths until one is unanimous."""

from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import Branches
from parallel_reason.strategies.parameters import Count
from parallel_reason.strategies.votes import majority


@dataclass(frozen=True)
class EarlyStopping:
    """Windows of ``window`` paths, one after another; the answer of the first that agrees, else the majority of ``n``.

    Li et al. 2024, arXiv 2401.10480.
    """

    n: Count = 64
    window: Count = 8
    name: str = "esc"

    async def run(self, branches: Branches) -> int:
        """See `Strategy.run`."""
        for _ in range(self.n // self.window):
            paths = await branches.start(self.window)
            if not len(paths):
                break
            await branches.sample(paths)
            answers = branches.answers[paths]
            if len(paths) == self.window and (answers == answers[0]).all():
                return int(answers[0])
        return majority(branches.answers)
