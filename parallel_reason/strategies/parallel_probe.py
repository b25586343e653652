"""Parallel-Probe: paths that disagree with the majority are pruned, and a majority that holds ends it."""

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import NO_ANSWER, Branches
from parallel_reason.strategies.parameters import Count, Natural
from parallel_reason.strategies.votes import majority


@dataclass(frozen=True)
class ParallelProbe:
    """Probes ``n`` paths every ``every`` tokens (arXiv 2602.03845, the variant that votes over paths not pruned).

    A path that runs and disagreed with the majority at ``patience`` probes in a row, counted from the probe after
    ``warm_up`` on, is pruned. It ends when the majority was the same at ``stable`` more probes, or when nothing runs.
    """

    n: Count = 64
    every: Count = 500
    warm_up: Natural = 15
    patience: Count = 7
    stable: Count = 40
    name: str = "parallel_probe"

    async def run(self, branches: Branches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        await branches.sample(paths, self.every)
        await branches.probe(paths)
        kept, off = np.ones(len(paths), dtype=bool), np.zeros(len(paths), dtype=np.int64)
        leading, same, step = NO_ANSWER - 1, 0, 0
        while same < self.stable and not branches.ended.all():
            await branches.sample(paths, self.every)
            await branches.probe(paths)
            winner = majority(branches.answers[kept])
            if step >= self.warm_up and kept.sum() > 1:
                going = ~branches.ended
                off = np.where(going, np.where(branches.answers != winner, off + 1, 0), off)
                pruned = going & (off >= self.patience)
                if pruned.any():
                    branches.cancel(np.flatnonzero(pruned))
                    kept &= ~pruned
                    if not kept.any():
                        return leading if leading >= 0 else NO_ANSWER
                    winner = majority(branches.answers[kept])
            same = same + 1 if winner == leading else 0
            leading, step = winner, step + 1
        branches.cancel(paths)
        return leading if leading >= 0 else majority(branches.answers)
