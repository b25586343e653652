"""Countdown problems: how they are written, drawn, and whether they can be solved.

Distribution of APR (Pan et al.): a target drawn from 10 to 100, then numbers drawn from 1 to 99 until an exhaustive
search finds a solution that uses all of them. Steps never go below zero and divide only without remainder.
"""

import itertools
import random
import re
from dataclasses import dataclass

from parallel_reason.errors import InputError

Key = tuple[tuple[int, ...], int]

_WRITTEN = re.compile(r"\s*[0-9]{1,9}\s*(,\s*[0-9]{1,9}\s*)+=\s*[0-9]{1,9}\s*")


@dataclass(frozen=True, slots=True)
class Problem:
    """Numbers and the target to reach with them; ``str`` writes it as a model reads it, ``22,26,31,53=27``."""

    numbers: tuple[int, ...]
    target: int

    def __str__(self) -> str:
        return f"{','.join(map(str, self.numbers))}={self.target}"

    @property
    def key(self) -> Key:
        """The sorted numbers and the target: the same for every order of the numbers."""
        return tuple(sorted(self.numbers)), self.target

    @classmethod
    def parse(cls, text: str) -> "Problem":
        """Read ``22,26,31,53=27``.

        Raises:
            InputError: the text is not a problem.
        """
        if not _WRITTEN.fullmatch(text):
            raise InputError(f"{text!r} is not a Countdown problem; write the numbers and the target as 22,26,31,53=27")
        numbers, target = text.split("=")
        return cls(tuple(int(n) for n in numbers.split(",")), int(target))


def results(a: int, b: int) -> set[int]:
    """Every value that one step makes of two numbers."""
    low, high = (a, b) if a < b else (b, a)
    made = {high + low, high - low, high * low}
    if low and high % low == 0:
        made.add(high // low)
    return made


def solvable(numbers: tuple[int, ...], target: int) -> bool:
    """Whether some order of ``+ - * /`` over all the numbers reaches the target."""
    seen: set[tuple[int, ...]] = set()

    def reaches(left: tuple[int, ...]) -> bool:
        if len(left) <= 2:
            return target in (results(*left) if len(left) == 2 else left)
        if left in seen:
            return False
        seen.add(left)
        return any(map(reaches, sorted(_after_one_step(left), key=sum)))  # small numbers are most often nearer

    return reaches(numbers)


def _after_one_step(numbers: tuple[int, ...]) -> set[tuple[int, ...]]:
    """All that can be left after one step, sorted numbers each."""
    left = set()
    for i, j in itertools.combinations(range(len(numbers)), 2):
        rest = numbers[:i] + numbers[i + 1 : j] + numbers[j + 1 :]
        left |= {tuple(sorted((*rest, value))) for value in results(numbers[i], numbers[j])}
    return left


def draw(rng: random.Random, size: int = 4) -> Problem:
    """One solvable problem of APR's distribution."""
    target = rng.randint(10, 100)
    while True:
        numbers = tuple(rng.randint(1, 99) for _ in range(size))
        if solvable(numbers, target):
            return Problem(numbers, target)
