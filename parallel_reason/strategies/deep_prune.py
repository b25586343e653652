"""DeepPrune: paths that will end in the same answer are found early, and only one of them goes on."""

from collections.abc import Awaitable, Callable

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import Branches, Ints
from parallel_reason.strategies.parameters import Count, Share
from parallel_reason.strategies.votes import majority

Judge = Callable[[Branches, int, int], Awaitable[float]]


async def same_answer_now(branches: Branches, one: int, other: int) -> float:
    """The judge that needs no model of its own: 1.0 if both, when probed, gave the same answer."""
    return float(branches.answers[one] >= 0 and branches.answers[one] == branches.answers[other])


@dataclass(frozen=True)
class DeepPrune:
    """``n`` paths of ``prefix`` tokens, clustered greedily; one of each cluster goes on, and votes for all of it.

    DeepPrune (arXiv 2510.08483): a path joins the first cluster whose representative ends in the same answer with at
    least ``threshold``, as the judge has it; the paper trains a judge on pairs of unfinished paths. Its vote over
    representatives forgets the sizes of the clusters; here each vote weighs as many paths as it stands for.
    """

    n: Count = 64
    prefix: Count = 8000
    threshold: Share = 0.5
    clusters: Count = 32
    judge: Judge = same_answer_now
    name: str = "deep_prune"

    async def run(self, branches: Branches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        await branches.sample(paths, self.prefix)
        await branches.probe(paths)
        of = await self._clustered(branches, paths)
        await branches.sample(np.unique(of))
        return majority(branches.answers[of])

    async def _clustered(self, branches: Branches, paths: Ints) -> Ints:
        """The path that stands for each path, [paths]; all others are stopped. One that has ended stands for itself."""
        representatives: list[int] = []
        of = paths.copy()
        ended = branches.ended
        for path in paths[~ended]:
            for one in representatives:
                if await self.judge(branches, int(path), one) >= self.threshold:
                    of[path] = one
                    break
            else:
                if len(representatives) < self.clusters:
                    representatives.append(int(path))
        branches.cancel(paths[of != paths])
        return of
