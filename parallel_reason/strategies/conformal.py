"""ATTS with one model: a path whose newest chunk is unlikely, by conformal calibration, makes room for a better one."""

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import Floats, running
from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.parameters import Count, Share
from parallel_reason.strategies.votes import majority


@dataclass(frozen=True)
class ConformalRejection:
    """``n`` paths; every ``every`` tokens, forks of the best replace those with a p-value of at most 1 - ``reject``.

    The self-scoring variant of ATTS (arXiv 2509.15148) that goes on from the best peer: the score of a chunk is its
    perplexity, calibrated on the first chunks of all paths of the problem. At most ``turns`` times; then all go on to
    their ends, and the majority counts. The authors count a problem as solved if any path is right.
    """

    n: Count = 16
    every: Count = 500
    reject: Share = 0.6
    turns: Count = 15
    name: str = "conformal"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        await branches.start(self.n)
        calibration = np.zeros(0)
        for turn in range(self.turns):
            going = running(branches, np.arange(len(branches.ended)))
            before = branches.lengths[going]
            await branches.sample(going, self.every)
            added = branches.lengths[going] - before
            every = [branches.logprobs(path) for path in going]
            scores = np.array([perplexity(one[len(one) - new :]) for one, new in zip(every, added, strict=True)])
            if not turn:
                calibration = scores
            still = ~branches.ended[going]
            rejected = going[still & (p_values(scores, calibration) <= 1 - self.reject)]
            kept = going[still & ~np.isin(going, rejected)]
            if len(kept):
                branches.cancel(rejected)
                best = int(kept[scores[np.isin(going, kept)].argmin()])
                await branches.fork([best] * len(rejected))
            if branches.ended.all():
                break
        await branches.sample(running(branches, np.arange(len(branches.ended))))
        return majority(branches.answers)


def perplexity(logprobs: Floats) -> float:
    """Of a chunk; infinite of an empty one."""
    return float(np.exp(-logprobs.mean())) if len(logprobs) else float("inf")


def p_values(scores: Floats, calibration: Floats) -> Floats:
    """Conformal p-values: the share of calibration scores that are at least as large, itself counted, [scores]."""
    larger = (calibration[None, :] >= scores[:, None]).sum(1)
    return np.asarray((larger + 1) / (len(calibration) + 1))
