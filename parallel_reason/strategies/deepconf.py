"""DeepConf: paths are weighed, or stopped early, by how sure the model was of their tokens."""

from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import NO_ANSWER, Floats, Ints, running
from parallel_reason.strategies.confidence import MEASURES, window_means
from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.parameters import Count, Share
from parallel_reason.strategies.votes import weighted_majority


@dataclass(frozen=True)
class DeepConfOffline:
    """``n`` paths to their ends; the surest ``keep`` of them vote, each with its confidence as weight.

    Fu et al. 2025, arXiv 2508.15260. ``measure`` is mean, tail, bottom or least, over windows of ``window`` tokens. The
    calls need ``logprobs``, 20 in the paper.
    """

    n: Count = 64
    measure: Literal["mean", "tail", "bottom", "least"] = "tail"
    window: Count = 2048
    keep: Share = 0.1
    name: str = "deepconf_offline"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        await branches.sample(paths)
        sure = np.array([MEASURES[self.measure](branches.confidences(path), self.window) for path in paths])
        return kept_vote(branches.answers, sure, self.keep)


@dataclass(frozen=True)
class DeepConfOnline:
    """``warm_up`` paths to their ends; every other one is stopped when a window is less sure than most of theirs.

    Fu et al. 2025, arXiv 2508.15260: the bar is the percentile 100 (1 - ``keep``) of the warm-up paths' least windows:
    0.1 is DeepConf-low, 0.9 DeepConf-high. The others are started ``batch`` at a time until one answer has the share
    ``consensus`` of the weight, or ``n`` were started: the stop of the paper, which its released package leaves out.
    Stopped paths do not vote; nor does a warm-up path below the bar. Looked at every ``every`` tokens.
    """

    n: Count = 64
    warm_up: Count = 16
    batch: Count = 16
    window: Count = 2048
    keep: Share = 0.1
    consensus: Share = 0.95
    every: Count = 256
    name: str = "deepconf_online"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.warm_up)
        await branches.sample(paths)
        least = self._least(branches, paths)
        bar = float(np.percentile(least, 100 * (1 - self.keep))) if len(least) else 0.0
        while len(branches.ended) < self.n and share_of_first(branches.answers, least, bar) < self.consensus:
            fresh = await branches.start(min(self.batch, self.n - len(branches.ended)))
            if not len(fresh):
                break
            await self._watched(branches, fresh, bar)
            least = np.concatenate([least, self._least(branches, fresh)])
        return weighted_majority(np.where(least >= bar, branches.answers, NO_ANSWER), least)

    async def _watched(self, branches: LiveBranches, paths: Ints, bar: float) -> None:
        """Sample paths to their ends; stop each whose newest full windows fall below the bar."""
        while len(going := running(branches, paths)):
            await branches.sample(going, self.every)
            for path in going:
                sure = branches.confidences(path)[-self.window - self.every :]
                if len(sure) >= self.window and window_means(sure, self.window).min() < bar:
                    branches.cancel(np.array([path]))

    def _least(self, branches: LiveBranches, paths: Ints) -> Floats:
        return np.array([MEASURES["least"](branches.confidences(path), self.window) for path in paths])


def kept_vote(answers: Ints, sure: Floats, keep: float) -> int:
    """The vote of the surest share of the paths that have an answer, weighted.

    Args:
        answers: [paths].
        sure: [paths].
        keep: share, at least one path.
    """
    voters = np.flatnonzero(answers >= 0)
    best = voters[np.argsort(-sure[voters], kind="stable")[: max(1, round(keep * len(voters)))]]
    best.sort()
    return weighted_majority(answers[best], sure[best])


def share_of_first(answers: Ints, least: Floats, bar: float) -> float:
    """The share of the weight that the leading answer has, of paths not below the bar; 0 without any."""
    voters = (answers >= 0) & (least >= bar)
    if not voters.any():
        return 0.0
    weights = np.bincount(answers[voters], least[voters])
    return float(weights.max() / weights.sum()) if weights.sum() else 0.0
