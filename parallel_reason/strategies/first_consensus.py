"""First consensus: paths go on side by side, and the first sure majority of those that have ended stops them all."""

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import Branches
from parallel_reason.strategies.parameters import Count, Share
from parallel_reason.strategies.votes import lead_is_real, leading_two, majority


@dataclass(frozen=True)
class FirstConsensus:
    """``n`` paths; whenever one ends, Adaptive-Consistency's question is asked of those that have ended. Written here.

    All are stopped when the lead is real with probability ``threshold``, or when a path has ``longest`` tokens: paths
    that run on far longer than the others seldom come to the right answer. Paths that were stopped do not vote; of
    equal votes the one whose path is shorter wins. It needs no probe and no log-prob.
    """

    n: Count = 16
    threshold: Share = 0.99
    longest: Count = 40_000
    name: str = "first_consensus"

    async def run(self, branches: Branches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        needed = 2
        while True:
            left = self.longest - int(branches.lengths.max(initial=0))
            await branches.sample(paths, left, until_ended=needed)
            ended = np.flatnonzero(branches.ended)
            sure = lead_is_real(*leading_two(branches.answers[ended])) > self.threshold
            if len(ended) < needed or len(ended) == len(paths) or sure:
                break
            needed = len(ended) + 1
        branches.cancel(paths)
        by_length = ended[np.argsort(branches.lengths[ended], kind="stable")]
        return majority(branches.answers[by_length])
