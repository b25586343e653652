"""pass@k and cons@k: what k of the n samples of a problem are expected to give, exactly, over all choices of k."""

from collections import Counter
from collections.abc import Sequence
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

Vote = tuple[str | None, bool]  # what an answer counts as, None without an answer; and whether it is correct


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that at least one of k samples out of n is correct: the unbiased estimator of Chen et al. (2107.03374)."""
    return 1.0 - prod((n - correct - drawn) / (n - drawn) for drawn in range(k))


def cons_at_k(votes: Sequence[Vote], k: int) -> float:
    """Chance that the most frequent answer of k samples is correct; a tie is decided by lot.

    Samples without an answer have no vote; if none has one, that is wrong.

    Args:
        votes: of all samples of a problem, [n].
    """
    counts = Counter(vote for vote, _ in votes if vote is not None)
    right = Counter(vote for vote, correct in votes if correct and vote is not None)
    silent = len(votes) - counts.total()
    chance = 0.0
    for answer in right:
        others = [count for vote, count in counts.items() if vote != answer]
        won = sum(_wins(counts[answer], others, silent, most, k) for most in range(1, min(k, counts[answer]) + 1))
        chance += right[answer] / counts[answer] * won
    return chance / comb(len(votes), k)


def _wins(own: int, others: Sequence[int], silent: int, most: int, k: int) -> float:
    """Choices of k samples in which an answer has ``most`` votes and no other has more, a tie of r counted as 1/r.

    Args:
        own: samples with this answer; ``others`` with each other one, ``silent`` with none.
    """
    ways: NDArray[np.float64] = np.zeros((k // most + 1, k + 1))  # [answers that tie with it, samples drawn]
    ways[0, : silent + 1] = [comb(silent, drawn) for drawn in range(min(silent, k) + 1)]
    for count in others:
        further = np.zeros_like(ways)
        for drawn in range(min(count, most - 1, k) + 1):
            further[:, drawn:] += comb(count, drawn) * ways[:, : k + 1 - drawn]
        if most <= min(count, k):
            further[1:, most:] += comb(count, most) * ways[:-1, : k + 1 - most]
        ways = further
    ties = 1 + np.arange(len(ways))
    return float(comb(own, most) * (ways[:, k - most] / ties).sum())
