"""SAC: each path stops by itself when its own answer no longer changes."""

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import Branches, running
from parallel_reason.strategies.parameters import Count
from parallel_reason.strategies.votes import majority


@dataclass(frozen=True)
class StableAnswers:
    """``n`` paths, each probed every ``every`` tokens and stopped after ``patience`` equal answers; the majority.

    The row "SC + SAC" of the table of Parallel-Probe (arXiv 2602.03845).
    """

    n: Count = 64
    patience: Count = 14
    every: Count = 500
    name: str = "sac"

    async def run(self, branches: Branches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        last, streaks = np.full(len(paths), -2), np.zeros(len(paths), dtype=np.int64)
        while len(going := running(branches, paths)):
            await branches.sample(going, self.every)
            await branches.probe(going)
            same = branches.answers[going] == last[going]
            streaks[going] = np.where(same, streaks[going] + 1, 1)
            last[going] = branches.answers[going]
            branches.cancel(going[streaks[going] >= self.patience])
        return majority(branches.answers)
