"""Best of n: a verifier, or the model's own certainty, chooses among finished paths."""

import inspect
from collections.abc import Awaitable, Callable

import numpy as np
from pydantic.dataclasses import dataclass

from parallel_reason.strategies.branches import NO_ANSWER
from parallel_reason.strategies.confidence import mean
from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.parameters import Count, Positive
from parallel_reason.strategies.votes import borda, weighted_majority

Verify = Callable[[str], float | Awaitable[float]]


@dataclass(frozen=True)
class BestOfN:
    """``n`` paths to their ends; the answer of the one that a verifier scores highest, the first of equal ones.

    ``verify`` gets what a path wrote; it may be async, and ask the model.
    """

    verify: Verify
    n: Count = 16
    name: str = "best_of_n"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        await branches.sample(paths)
        scores = np.full(len(paths), -np.inf)
        for path in np.flatnonzero(branches.answers >= 0):
            score = self.verify(branches.text(path))
            scores[path] = await score if inspect.isawaitable(score) else score
        return int(branches.answers[scores.argmax()]) if np.isfinite(scores).any() else NO_ANSWER


@dataclass(frozen=True)
class SelfCertainty:
    """``n`` paths to their ends, weighted by the rank of their certainty (Kang et al. 2025, arXiv 2502.18581).

    The vote of rank r weighs (n - r + 1) ** ``power``. Certainty is the mean of the tokens' confidences over the most
    likely tokens, as many as ``logprobs`` asks for; with all of the vocabulary it is the paper's, up to a constant.
    """

    n: Count = 16
    power: Positive = 0.5
    name: str = "self_certainty"

    async def run(self, branches: LiveBranches) -> int:
        """See `Strategy.run`."""
        paths = await branches.start(self.n)
        await branches.sample(paths)
        sure = np.array([mean(branches.confidences(path), 0) for path in paths])
        voters = branches.answers >= 0
        weights = np.zeros(len(paths))
        weights[voters] = borda(sure[voters], self.power)
        return weighted_majority(branches.answers, weights)
