"""Adaptive-Consistency (ASC): one path after another until the leading answer is sure."""

from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import Branches
from parallel_reason.strategies.parameters import Count, Share
from parallel_reason.strategies.votes import lead_is_real, leading_two, majority


@dataclass(frozen=True)
class AdaptiveConsistency:
    """Stops when the lead over the second answer is real with probability ``threshold``, or after ``n`` paths.

    Aggarwal et al. 2023, arXiv 2305.11860. Not before the second path; with the default, four equal answers do.
    """

    n: Count = 64
    threshold: Share = 0.95
    name: str = "asc"

    async def run(self, branches: Branches) -> int:
        """See `Strategy.run`."""
        for drawn in range(self.n):
            path = await branches.start(1)
            if not len(path):
                break
            await branches.sample(path)
            if drawn and lead_is_real(*leading_two(branches.answers)) > self.threshold:
                break
        return majority(branches.answers)
