"""NoThinking: the thinking is closed before it begins, and many short solutions are voted over."""

from pydantic.dataclasses import dataclass

from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.parameters import Count
from parallel_reason.strategies.votes import majority


@dataclass(frozen=True)
class NoThinking:
    """``n`` paths that begin with a box of thoughts that says it is done (Ma et al. 2025, arXiv 2504.09858)."""

    n: Count = 16
    begin: str = "<think>\nOkay, I think I have finished thinking.\n</think>\n\n"
    name: str = "no_thinking"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n, self.begin)
        await branches.sample(paths)
        return majority(branches.answers)
