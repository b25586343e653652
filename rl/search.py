"""The search that a child of the embedded model writes: it meets in the middle, and checks the match that it finds.

A child has three numbers and the target T. For each number c it writes the backward values ``T c:`` T+c, |T-c|, T*c,
T/c, from which one step with c leads to the target; the forward values ``a b:`` a+b, |a-b|, a*b, a/b, which one step
makes of the other two; and the value that is in both, or ``no``. That value is checked: its two steps are computed
forwards, and ``no`` follows where they do not end at T:

    27 48:75 21 _ _|53 31:84 22 _ _ no ... 27 26:53 1 _ _|31 31:62 0 _ 1 1 31/31=1,1+26=27

``_`` stands for a result that is no whole number, is above the largest, is in another column too, or leads nowhere.
"""

import itertools
import random
from dataclasses import dataclass

from parallel_reason.tasks.countdown import LARGEST

OPERATIONS = "+-*/"
NEAR = 4  # largest distance of two values that a model may mistake for one another
Words = list[str]
Numbers = tuple[int, int, int]
Step = tuple[int, str, int, int | None]  # operand, operation, operand, result; no result if it cannot be written


def forward_values(a: int, b: int) -> list[int | None]:
    """a+b, |a-b|, a*b and the whole quotient of the larger by the smaller; None where there is nothing to try."""
    low, high = sorted((a, b))
    values = [high + low, high - low, high * low, high // low if low > 1 and high % low == 0 else None]
    return [value if value is not None and value <= LARGEST else None for value in values]


def backward_values(target: int, c: int) -> list[int | None]:
    """The values from which one step with ``c`` leads to the target, by the columns of ``forward_values``."""
    values = forward_values(target, c)
    return values if c else [*values[:2], None, None]  # 0*c leads nowhere


@dataclass(frozen=True)
class Pairing:
    """One of the three ways to pair a child's numbers: a step with ``a`` and ``b``, then one with its result and ``c``.

    A match is a pair of columns, of the forward and of the backward values.
    """

    target: int
    c: int
    a: int
    b: int

    def forward(self) -> list[int | None]:
        """What one step makes of ``a`` and ``b``."""
        return forward_values(self.a, self.b)

    def backward(self) -> list[int | None]:
        """From what one step with ``c`` leads to the target."""
        return backward_values(self.target, self.c)

    def first_step(self, column: int) -> Step:
        """The step that makes the forward value of a column."""
        low, high = sorted((self.a, self.b))
        return high, OPERATIONS[column], low, self.forward()[column]

    def last_step(self, value: int, column: int) -> Step:
        """The step with ``value`` and ``c`` for a column of the backward values; its result may miss the target."""
        c, above = self.c, self.target >= self.c
        if column == 0:
            return value, "-", c, _whole(value - c)
        if column == 1:
            return (value, "+", c, _whole(value + c)) if above else (c, "-", value, _whole(c - value))
        if column == 2:
            return value, "/", c, _quotient(value, c)
        return (value, "*", c, _whole(value * c)) if above else (c, "/", value, _quotient(c, value))

    def write(self, backward: list[int | None], forward: list[int | None]) -> Words:
        """``27 53:80 26 _ _|48 31:79 17 _ _``."""
        left = [str(self.target), str(self.c), ":", *map(write_value, backward)]
        return [*left, "|", str(self.a), str(self.b), ":", *map(write_value, forward)]

    def match(self) -> tuple[int, int] | None:
        """The first match of equal values."""
        backward, forward = self.backward(), self.forward()
        for column, value in enumerate(forward):
            if value is not None and value in backward:
                return column, backward.index(value)
        return None

    def near_matches(self) -> list[tuple[int, int, int]]:
        """``(distance, forward column, backward column)`` of every two values that are near, not equal; ascending."""
        return sorted(
            (abs(made - wanted), i, j)
            for i, made in enumerate(self.forward())
            for j, wanted in enumerate(self.backward())
            if made is not None and wanted is not None and 0 < abs(made - wanted) <= NEAR
        )


def pairings(numbers: Numbers, target: int) -> list[Pairing]:
    """The three pairings of a child's numbers, in order."""
    out = []
    for place, c in enumerate(numbers):
        a, b = (n for k, n in enumerate(numbers) if k != place)
        out.append(Pairing(target, c, a, b))
    return out


def solution(numbers: Numbers, target: int) -> list[Step] | None:
    """The two steps that a child finds."""
    for pairing in pairings(numbers, target):
        match = pairing.match()
        if match:
            first = pairing.first_step(match[0])
            assert first[3] is not None
            return [first, pairing.last_step(first[3], match[1])]
    return None


def nearest_miss(numbers: Numbers, target: int) -> int:
    """The smallest distance of two values that do not match; above ``NEAR`` if none are near."""
    near = (pairing.near_matches() for pairing in pairings(numbers, target))
    return min((matches[0][0] for matches in near if matches), default=NEAR + 1)


def write_search(numbers: Numbers, target: int, rng: random.Random, error_rate: float) -> list[Words]:
    """A child's text up to its result, in pieces: by turns text to train on, and one injected error not to train on.

    Args:
        error_rate: probability of an error in a pairing without a match that has near ones: a false match, or a false
            value. The text after it checks the match, finds the error and goes on.
    """
    text: list[Words] = [[]]
    for pairing in pairings(numbers, target):
        backward, forward = pairing.backward(), pairing.forward()
        match, near = pairing.match(), pairing.near_matches()
        if match:
            value = forward[match[0]]
            text[-1] += [*pairing.write(backward, forward), write_value(value), *write_check(pairing, value, match)]
            break
        if not near or rng.random() >= error_rate:
            text[-1] += [*pairing.write(backward, forward), "no"]
            continue
        _, i, j = rng.choice(near)
        if rng.random() < 0.5:  # a false match: one value is taken for the other
            value = rng.choice((forward[i], backward[j]))
            text += [[write_value(value)], write_check(pairing, value, (i, j))]
            text[-3] += pairing.write(backward, forward)
        else:  # a false value: one is computed as the other
            values, column, value = rng.choice(((backward, j, forward[i]), (forward, i, backward[j])))
            values[column] = value
            words, place = pairing.write(backward, forward), (3 if values is backward else 11) + column
            text[-1] += words[:place]
            after = [*words[place + 1 :], write_value(value), *write_check(pairing, value, (i, j))]
            text += [[words[place]], after]
    return text


def write_check(pairing: Pairing, value: int | None, match: tuple[int, int]) -> Words:
    """The two steps of a match, computed forwards, and ``no`` as soon as they do not lead to the target."""
    first = pairing.first_step(match[0])
    assert first[3] is not None
    if first[3] != value:
        return [*write_step(first), "no"]
    last = pairing.last_step(first[3], match[1])
    return [*write_step(first), ",", *write_step(last), *([] if last[3] == pairing.target else ["no"])]


def first_steps(numbers: tuple[int, ...]) -> list[tuple[Step, Numbers]]:
    """Every first step, and the three numbers it leaves, its result first."""
    out: list[tuple[Step, Numbers]] = []
    for i, j in itertools.combinations(range(len(numbers)), 2):
        y, z = (n for k, n in enumerate(numbers) if k not in (i, j))
        low, high = sorted((numbers[i], numbers[j]))
        for operation, value in zip(OPERATIONS, forward_values(low, high), strict=True):
            if value is not None:
                out.append(((high, operation, low, value), (value, y, z)))
    return out


def write_step(step: Step) -> Words:
    """``26+22=48`` as words."""
    a, operation, b, value = step
    return [str(a), operation, str(b), "=", write_value(value)]


def write_value(value: int | None) -> str:
    """A value as a word."""
    return "_" if value is None else str(value)


def _whole(value: int) -> int | None:
    return value if 0 <= value <= LARGEST else None


def _quotient(a: int, b: int) -> int | None:
    return a // b if b and a % b == 0 else None
