"""What a child of the embedded model writes: a search that meets in the middle, and a check of what it found.

A child has three numbers ``x y z`` and the target T. For each number c it writes what the other two would have to
make, ``T c:`` with T+c, |T-c|, T*c, T/c, then what they make, ``a b:`` with a+b, |a-b|, a*b, a/b, then the value that
stands in both, or ``no``. A value is checked by its two steps, worked out forwards, and given up with ``no`` where
they do not end at T:

    27 48:75 21 _ _|53 31:84 22 _ _ no ... 27 26:53 1 _ _|31 31:62 0 _ 1 1 31/31=1,1+26=27

``_`` stands for a result that is no whole number, is above the largest, that another column covers, or leads nowhere.
"""

import itertools
import random
from dataclasses import dataclass

from parallel_reason.countdown.vocabulary import LARGEST

OPERATIONS = "+-*/"
NEAR = 4  # distance at which two values are taken for one another, by a model and so by `stumbles`
Words = list[str]
Step = tuple[int, str, int, int | None]


def fan(a: int, b: int) -> list[int | None]:
    """a+b, |a-b|, a*b and the whole quotient of the larger by the smaller; None where there is nothing to try."""
    low, high = sorted((a, b))
    values = [high + low, high - low, high * low, high // low if low > 1 and high % low == 0 else None]
    return [value if value is not None and value <= LARGEST else None for value in values]


def wanted(target: int, c: int) -> list[int | None]:
    """The values from which one step with ``c`` leads to the target, by the columns of ``fan``; 0*c leads nowhere."""
    values = fan(target, c)
    return values if c else [*values[:2], None, None]


@dataclass(frozen=True)
class Line:
    """One of the three ways to go on: make a value of ``a`` and ``b``, and the target of that and ``c``."""

    target: int
    c: int
    a: int
    b: int

    def first(self, column: int) -> Step:
        """The step that makes the value of a column."""
        low, high = sorted((self.a, self.b))
        return high, OPERATIONS[column], low, fan(low, high)[column]

    def last(self, value: int, column: int) -> Step:
        """The step from ``value`` and ``c`` for a column of ``wanted``, with what it makes, the target or not."""
        c, above = self.c, self.target >= self.c
        if column == 0:
            return value, "-", c, _whole(value - c)
        if column == 1:
            return (value, "+", c, _whole(value + c)) if above else (c, "-", value, _whole(c - value))
        if column == 2:
            return value, "/", c, _quotient(value, c)
        return (value, "*", c, _whole(value * c)) if above else (c, "/", value, _quotient(c, value))

    def write(self, wants: list[int | None], makes: list[int | None]) -> Words:
        """``27 53:80 26 _ _|48 31:79 17 _ _``."""
        left = [str(self.target), str(self.c), ":", *map(write, wants)]
        return [*left, "|", str(self.a), str(self.b), ":", *map(write, makes)]

    def hit(self) -> tuple[int, int] | None:
        """Columns of ``fan`` and of ``wanted`` in which one value stands, the first such."""
        wants, makes = wanted(self.target, self.c), fan(self.a, self.b)
        found = next((k for k, value in enumerate(makes) if value is not None and value in wants), None)
        return None if found is None else (found, wants.index(makes[found]))

    def misses(self) -> list[tuple[int, int, int]]:
        """``(distance, column of fan, column of wanted)`` of every two values that are near but not the same."""
        return sorted(
            (abs(made - want), i, j)
            for i, made in enumerate(fan(self.a, self.b))
            for j, want in enumerate(wanted(self.target, self.c))
            if made is not None and want is not None and 0 < abs(made - want) <= NEAR
        )


def lines(numbers: tuple[int, int, int], target: int) -> list[Line]:
    """The three lines of a child, in order."""
    out = []
    for place, c in enumerate(numbers):
        a, b = (n for k, n in enumerate(numbers) if k != place)
        out.append(Line(target, c, a, b))
    return out


def solution(numbers: tuple[int, int, int], target: int) -> list[Step] | None:
    """The two steps that a child finds."""
    for line in lines(numbers, target):
        hit = line.hit()
        if hit:
            first = line.first(hit[0])
            assert first[3] is not None
            return [first, line.last(first[3], hit[1])]
    return None


def nearest_miss(numbers: tuple[int, int, int], target: int) -> int:
    """How close a search comes to a false verdict; above ``NEAR`` if nothing in it is near."""
    return min((line.misses()[0][0] for line in lines(numbers, target) if line.misses()), default=NEAR + 1)


def write_search(numbers: tuple[int, int, int], target: int, rng: random.Random, stumbles: float) -> list[Words]:
    """A child's text up to its result: by turns what the model shall learn to write, and a slip that it shall mend.

    Args:
        stumbles: chance of a slip in a line without a hit where two values are near: a false verdict, or a false value.
    """
    text: list[Words] = [[]]
    for line in lines(numbers, target):
        wants, makes = wanted(line.target, line.c), fan(line.a, line.b)
        hit, misses = line.hit(), line.misses()
        if hit:
            value = makes[hit[0]]
            text[-1] += [*line.write(wants, makes), write(value), *check(line, value, hit)]
            break
        if not misses or rng.random() >= stumbles:
            text[-1] += [*line.write(wants, makes), "no"]
            continue
        _, i, j = rng.choice(misses)
        if rng.random() < 0.5:  # takes one value for the other
            value = rng.choice((makes[i], wants[j]))
            text += [[write(value)], check(line, value, (i, j))]
            text[-3] += line.write(wants, makes)
        else:  # works one of them out as the other
            row, column, value = rng.choice(((wants, j, makes[i]), (makes, i, wants[j])))
            row[column] = value
            words, place = line.write(wants, makes), (3 if row is wants else 11) + column
            text[-1] += words[:place]
            text += [[words[place]], [*words[place + 1 :], write(value), *check(line, value, (i, j))]]
    return text


def check(line: Line, value: int | None, columns: tuple[int, int]) -> Words:
    """The two steps through ``value``, worked out forwards, and ``no`` as soon as they do not lead to the target."""
    first = line.first(columns[0])
    assert first[3] is not None
    if first[3] != value:
        return [*write_step(first), "no"]
    last = line.last(first[3], columns[1])
    return [*write_step(first), ",", *write_step(last), *([] if last[3] == line.target else ["no"])]


def first_steps(numbers: tuple[int, ...]) -> list[tuple[Step, tuple[int, int, int]]]:
    """Every first step, and the three numbers it leaves, its result first."""
    out = []
    for i, j in itertools.combinations(range(len(numbers)), 2):
        y, z = (n for k, n in enumerate(numbers) if k not in (i, j))
        low, high = sorted((numbers[i], numbers[j]))
        for operation, value in zip(OPERATIONS, fan(low, high), strict=True):
            if value is not None:
                out.append(((high, operation, low, value), (value, y, z)))
    return out


def write_step(step: Step) -> Words:
    """``26+22=48`` as words."""
    a, operation, b, value = step
    return [str(a), operation, str(b), "=", write(value)]


def write(value: int | None) -> str:
    """A value as a word."""
    return "_" if value is None else str(value)


def _whole(value: int) -> int | None:
    return value if 0 <= value <= LARGEST else None


def _quotient(a: int, b: int) -> int | None:
    return a // b if b and a % b == 0 else None
