"""The split of Countdown problems into a test set and all others: the only place that defines it.

Two problems are the same if their keys are: the order of the numbers does not count.
"""

import itertools
import random
from collections.abc import Iterator
from functools import cache

from parallel_reason.errors import InputError
from parallel_reason.tasks.countdown.problem import Key, Problem, draw

HELD_OUT = 2000  # problems in the test set of each size


def held_out(count: int = HELD_OUT, size: int = 4) -> list[Problem]:
    """The first ``count`` problems of the test set, no two of them the same.

    Args:
        size: how many numbers a problem has.

    Raises:
        InputError: more than the test set has, since training may have seen those.
    """
    if not 0 <= count <= HELD_OUT:
        raise InputError(f"{count} held-out problems were asked for; the test set has {HELD_OUT}")
    return list(itertools.islice(_distinct(random.Random(f"held-out {size} 2024"), size), count))


@cache
def held_out_keys(size: int = 4) -> frozenset[Key]:
    """The keys of the whole test set: training leaves out every problem with one of them."""
    return frozenset(problem.key for problem in held_out(HELD_OUT, size))


def _distinct(rng: random.Random, size: int) -> Iterator[Problem]:
    seen: set[Key] = set()
    while True:
        problem = draw(rng, size)
        if problem.key not in seen:
            seen.add(problem.key)
            yield problem
