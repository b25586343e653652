"""Votes over answers, as pure functions. Paths without an answer never vote; in a tie the first answer wins."""

from functools import lru_cache
from math import comb

import numpy as np

from parallel_reason.strategies.branches import NO_ANSWER, Floats, Ints


def majority(answers: Ints) -> int:
    """The most frequent answer; of equal ones the first, as `collections.Counter` has it. NO_ANSWER if there is none.

    Args:
        answers: [paths].
    """
    cast = answers[answers >= 0]
    if not len(cast):
        return NO_ANSWER
    return int(cast[np.bincount(cast)[cast].argmax()])


def weighted_majority(answers: Ints, weights: Floats) -> int:
    """The answer with the largest sum of weights; NO_ANSWER if there is none.

    Args:
        answers: [paths].
        weights: [paths], not negative.
    """
    cast = answers >= 0
    if not cast.any():
        return NO_ANSWER
    chosen = answers[cast]
    return int(chosen[np.bincount(chosen, weights[cast])[chosen].argmax()])


def leading_two(answers: Ints) -> tuple[int, int]:
    """The votes of the most and of the second most frequent answer."""
    counts = np.bincount(answers[answers >= 0], minlength=2)
    second, first = np.partition(counts, -2)[-2:]
    return int(first), int(second)


@lru_cache(maxsize=65536)
def lead_is_real(first: int, second: int) -> float:
    """The probability that the first of two answers is the more likely one, given their votes and a flat prior.

    P(p > 1/2) under Beta(first + 1, second + 1): the stopping rule of Adaptive-Consistency (Aggarwal et al. 2023,
    arXiv 2305.11860). For whole numbers it is the share of coin tosses with at most ``first`` heads.
    """
    tosses = first + second + 1
    return float(sum(comb(tosses, heads) for heads in range(first + 1)) / 2**tosses)


def borda(scores: Floats, power: float) -> Floats:
    """The weight of each path by the rank of its score: (n - rank + 1) ** power, the best having rank 1.

    Self-certainty with Borda voting (Kang et al. 2025, arXiv 2502.18581). Equal scores rank in their order.
    """
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return np.asarray((len(scores) - ranks + 1) ** power)


def entropy(answers: Ints) -> float:
    """The entropy of the answers, in nats; each path without one is an answer of its own.

    Semantic entropy where equal answers mean the same (SEAT, arXiv 2507.06829).
    """
    counts = np.bincount(answers[answers >= 0])
    shares = np.concatenate([counts[counts > 0], np.ones((answers < 0).sum())]) / max(len(answers), 1)
    return float(-(shares * np.log(shares)).sum())
