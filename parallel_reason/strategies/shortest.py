"""Those that finish first: short-m@k and the shortest of n."""

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import Branches
from parallel_reason.strategies.parameters import Count
from parallel_reason.strategies.votes import majority


@dataclass(frozen=True)
class ShortMK:
    """``k`` paths, stopped when ``m`` have ended; the majority of these (Hassid et al. 2025, arXiv 2505.17813).

    Of equal votes the one whose path is shorter wins. With m = 1 it is the shortest of k ("The Virtues of Brevity",
    arXiv 2510.21067), without the tokens of the others.
    """

    m: Count = 3
    k: Count = 8
    name: str = "short_mk"

    async def run(self, branches: Branches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.k)
        await branches.sample(paths, until_ended=self.m)
        finished = np.flatnonzero(branches.ended)
        branches.cancel(paths)
        by_length = finished[np.argsort(branches.lengths[finished], kind="stable")]
        return majority(branches.answers[by_length[: self.m]])
