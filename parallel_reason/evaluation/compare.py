"""Two runs on the same problems, compared problem by problem: what differs, whether that is noise, and what would tell.

The difference of accuracies is a mean over problems of the difference of each problem's own accuracies, so that what
makes a problem easy or hard for both cancels.
"""

from collections.abc import Sequence
from math import ceil, comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parallel_reason.errors import InputError
from parallel_reason.evaluation.figures import by_problem
from parallel_reason.evaluation.intervals import Interval
from parallel_reason.evaluation.sample import Sample
from parallel_reason.record import FrozenRecord

RESAMPLINGS = 10_000
DETECTED = 1.96 + 0.84  # standard errors at which a 95% test finds a difference in 80% of runs
Floats = NDArray[np.float64]


class Ratio(FrozenRecord):
    """A cost of the second run over that of the first, of the sums over problems; with a 95% bootstrap interval.

    Attributes:
        worse: the share of problems on which the second run costs more.
    """

    value: float
    low: float
    high: float
    worse: float


class Comparison(FrozenRecord):
    """The second run less the first, on the problems of both.

    Attributes:
        problems: how many; ``left_out`` are in one run only.
        first, second: accuracies, means over problems.
        difference: second less first, in accuracy; ``low`` and ``high`` are its 95% interval, by a bootstrap over
            problems.
        p_value: two-sided, of no difference: with one sample a problem McNemar's exact test, else the sign-flip
            permutation test of the problems' differences, which is the same test for more samples.
        test: which of the two.
        first_only, second_only: problems of which the first run has more correct samples, and the second.
        noise: whether the interval holds 0, or the p-value is above 0.05: with few problems a bootstrap is too narrow.
        problems_to_settle: of such problems with as many samples each, how many would show a difference of this size in
            four runs out of five; None if there is none.
        samples_to_settle: of each of these problems, how many samples would; None if no number would.
        critical_path, sampled_tokens, wall_s: costs.
    """

    problems: int
    left_out: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    test: str
    first_only: int
    second_only: int
    noise: bool
    problems_to_settle: int | None
    samples_to_settle: int | None
    critical_path: Ratio
    sampled_tokens: Ratio
    wall_s: Ratio


class _Pairs(NamedTuple):
    """Of each problem of both runs, [problems]: the samples of the first and of the second."""

    first: list[list[Sample]]
    second: list[list[Sample]]


def compare(first: Sequence[Sample], second: Sequence[Sample], *, seed: int = 0) -> Comparison:
    """Compare two runs.

    Args:
        seed: of the bootstrap and of the permutations.

    Raises:
        InputError: they have no problem in common.
    """
    one, other = by_problem(first), by_problem(second)
    both = [key for key in one if key in other]
    if not both:
        raise InputError("the runs have no problem in common: compare runs of one task")
    pairs = _Pairs([one[key] for key in both], [other[key] for key in both])
    means = [np.array([_accuracy(group) for group in side]) for side in pairs]
    differences = means[1] - means[0]
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(both), size=(RESAMPLINGS, len(both)))
    low, high = _percentiles(differences[draws].mean(axis=1))
    single = all(len(group) == 1 for side in pairs for group in side)
    better = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = mcnemar(*better) if single else sign_flip(differences, rng)
    needed = _to_settle(pairs, differences)
    return Comparison(
        problems=len(both),
        left_out=len(one) + len(other) - 2 * len(both),
        first=float(means[0].mean()),
        second=float(means[1].mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=p_value,
        test="McNemar's exact test" if single else "sign-flip permutation test",
        first_only=better[1],
        second_only=better[0],
        noise=low <= 0 <= high or p_value > 0.05,
        problems_to_settle=needed[0],
        samples_to_settle=needed[1],
        critical_path=_ratio(pairs, "critical_path_tokens", draws),
        sampled_tokens=_ratio(pairs, "sampled_tokens", draws),
        wall_s=_ratio(pairs, "wall_s", draws),
    )


def mcnemar(one: int, other: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    Args:
        one, other: pairs in which only the one, or only the other, is correct.
    """
    total, fewer = one + other, min(one, other)
    return min(1.0, float(2 * sum(comb(total, count) for count in range(fewer + 1)) / 2**total))


def sign_flip(differences: Floats, rng: np.random.Generator) -> float:
    """How often flipping the signs of differences at random gives a mean at least as far from 0, [problems] to one."""
    moving = differences[differences != 0]
    if not len(moving):
        return 1.0
    signs = rng.choice([-1.0, 1.0], size=(RESAMPLINGS, len(moving)))
    as_far = np.abs(signs @ moving) >= abs(moving.sum()) - 1e-9
    return float((as_far.sum() + 1) / (RESAMPLINGS + 1))


def _to_settle(pairs: _Pairs, differences: Floats) -> tuple[int | None, int | None]:
    """How many problems, and how many samples of each of these, would settle the difference that was seen."""
    problems, difference = len(differences), abs(float(differences.mean()))
    if problems < 2 or difference < 1e-12:
        return None, None
    allowed = (difference / DETECTED) ** 2  # variance of the mean difference
    total = float(differences.var(ddof=1))  # of one problem's difference, that of its samples included
    needed = max(2, ceil(total / allowed))
    fewest = min(len(group) for side in pairs for group in side)
    if fewest < 2:
        return needed, None  # nothing says how much samples of one problem differ
    of_samples = float(np.mean([_variance(one) + _variance(other) for one, other in zip(*pairs, strict=True)]))
    rest = problems * allowed - max(0.0, total - of_samples)
    return needed, ceil(fewest * of_samples / rest) if rest > 0 else None


def _variance(group: list[Sample]) -> float:
    """Of a problem's accuracy, were its samples drawn anew; without bias."""
    p = _accuracy(group)
    return p * (1 - p) / (len(group) - 1)


def _accuracy(group: list[Sample]) -> float:
    return sum(sample.correct for sample in group) / len(group)


def _ratio(pairs: _Pairs, cost: str, draws: NDArray[np.int64]) -> Ratio:
    """Of the means of each problem's samples."""
    first, second = (
        np.array([np.mean([getattr(sample.ledger, cost) for sample in group]) for group in side]) for side in pairs
    )
    with np.errstate(divide="ignore", invalid="ignore"):  # a cost may be 0, and the ratio is then not a number
        low, high = _percentiles(second[draws].sum(axis=1) / first[draws].sum(axis=1))
        value = float(second.sum() / first.sum())
    return Ratio(value=value, low=low, high=high, worse=float((second > first).mean()))


def _percentiles(values: Floats) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
