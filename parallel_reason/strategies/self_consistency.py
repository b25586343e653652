"""Self-consistency: the majority of n independent paths."""

from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import Branches
from parallel_reason.strategies.parameters import Count
from parallel_reason.strategies.votes import majority


@dataclass(frozen=True)
class SelfConsistency:
    """``n`` paths to their ends, one vote each (Wang et al. 2022, arXiv 2203.11171)."""

    n: Count = 64
    name: str = "sc"

    async def run(self, branches: Branches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        await branches.sample(paths)
        return majority(branches.answers)
