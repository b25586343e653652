"""Confidence intervals of proportions and of medians."""

from math import floor, sqrt


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of ``hits`` in ``n``; 95% for the default z."""
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)  # rounding may pass 0 and 1


def of_median(values: list[float], z: float = 1.96) -> tuple[float, float]:
    """An interval of the median for any distribution: two of the values, by rank (sign test); 95% for the default z.

    Of at most seven values it is their range.
    """
    n, ranked = len(values), sorted(values)
    outside = max(0, floor((n - z * sqrt(n)) / 2))
    return ranked[outside], ranked[n - 1 - outside]
