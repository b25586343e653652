"""Prune and fork: every so often the worst paths are stopped and the best go on twice."""

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import running
from parallel_reason.strategies.confidence import mean
from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.parameters import Count
from parallel_reason.strategies.votes import majority


@dataclass(frozen=True)
class PruneAndFork:
    """Every ``every`` tokens the ``k`` least sure of the running paths are stopped and the ``k`` surest forked.

    Gambit's schedule (arXiv 2608.08020), on forks that share their prefix; a path is scored by the confidence of its
    newest ``every`` tokens. ``n`` paths are kept while ``rounds`` last; the majority of those that came to their ends.
    """

    n: Count = 16
    k: Count = 4
    every: Count = 1024
    rounds: Count = 8
    name: str = "prune_and_fork"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        await branches.start(self.n)
        for _ in range(self.rounds):
            going = running(branches, np.arange(len(branches.ended)))
            await branches.sample(going, self.every)
            going = running(branches, going)
            k = min(self.k, len(going) // 2)
            if not k:
                break
            sure = [mean(branches.confidences(path)[-self.every :], 0) for path in going]
            ranked = going[np.argsort(sure, kind="stable")]
            branches.cancel(ranked[:k])
            await branches.fork(ranked[-k:].tolist())
        await branches.sample(running(branches, np.arange(len(branches.ended))))
        return majority(branches.answers)
