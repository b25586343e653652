"""Confidence intervals: of proportions, of those over problems that were each sampled several times, and of medians."""

from collections.abc import Sequence
from math import floor, sqrt

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Z = 1.96  # of a 95% interval


def wilson(hits: float, n: float, z: float = Z) -> Interval:
    """The Wilson score interval of ``hits`` in ``n``; 95% for the default z."""
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)  # rounding may pass 0 and 1


def problem_error(means: NDArray[np.float64]) -> float:
    """Standard error of the mean over problems, were the problems drawn anew; NaN of one problem.

    Args:
        means: the share of hits of each problem, [problems].
    """
    return float(means.std(ddof=1) / sqrt(len(means))) if len(means) > 1 else float("nan")


def sampling_error(hits: Sequence[int], samples: Sequence[int]) -> float | None:
    """Standard error of the mean over these very problems, were their samples drawn anew; None if one has one sample.

    Args:
        hits, samples: of each problem, [problems].
    """
    if min(samples) < 2:
        return None
    variances = [h / n * (1 - h / n) / (n - 1) for h, n in zip(hits, samples, strict=True)]  # each without bias
    return sqrt(sum(variances)) / len(samples)


def clustered(hits: Sequence[int], samples: Sequence[int], z: float = Z) -> Interval:
    """The Wilson interval of the mean over problems, each of which was sampled several times.

    The samples of one problem are no independent observations. Their number is divided by the design effect, how much
    larger the variance over problems is than that of as many independent samples (Kish; for Wilson intervals Dean and
    Pagano, 2015). With one sample a problem it is the plain Wilson interval. It holds for problems drawn anew.

    Args:
        hits, samples: of each problem, [problems].
    """
    problems, total = len(hits), sum(samples)
    means = np.array(hits) / np.array(samples)
    mean = float(means.mean())
    if mean in (0.0, 1.0) or problems == 1:
        return wilson(mean * problems, problems, z)  # nothing says that the samples of a problem differ
    error = problem_error(means)
    effective = total if error == 0 else min(total, total * mean * (1 - mean) / ((total - 1) * error**2))
    return wilson(mean * effective, effective, z)


def of_median(values: list[float], z: float = Z) -> Interval:
    """An interval of the median for any distribution: two of the values, by rank (sign test); 95% for the default z.

    Of at most seven values it is their range.
    """
    n, ranked = len(values), sorted(values)
    outside = max(0, floor((n - z * sqrt(n)) / 2))
    return ranked[outside], ranked[n - 1 - outside]
