"""Traces that a program writes for the embedded model to learn from: a search that meets in the middle.

The parent makes every first step and spawns one child for each. A child has three numbers ``x y z`` and the target T.
For each number c it writes what the other two would have to make, ``T c:`` with T+c, |T-c|, T*c, T/c, then what they do
make, ``a b:`` with a+b, |a-b|, a*b, a/b, then the value that stands in both, or ``no``:

    27 48:75 21 _ _|53 31:84 22 _ _ no ...

``_`` stands for a result that is no whole number, is above the largest, that another column covers, or that is a
product with zero. A child that found a value returns all three steps; the parent copies the first result.
"""

import itertools
import random
from dataclasses import dataclass

from parallel_reason import SpawnJoin, Trace
from parallel_reason.countdown.problem import Problem
from parallel_reason.countdown.vocabulary import LARGEST
from parallel_reason.trace import Fork, Span, Thread

OPERATIONS = "+-*/"
Words = list[str]
Step = tuple[int, str, int, int]


def fan(a: int, b: int) -> list[int | None]:
    """a+b, |a-b|, a*b and the whole quotient of the larger by the smaller; None where there is nothing to try."""
    low, high = sorted((a, b))
    values = [
        high + low,
        high - low,
        high * low if low else None,
        high // low if low > 1 and high % low == 0 else None,
    ]
    return [value if value is not None and value <= LARGEST else None for value in values]


def first_steps(numbers: tuple[int, ...]) -> list[tuple[Step, tuple[int, ...]]]:
    """Every first step and the numbers that are left beside its result."""
    out = []
    for i, j in itertools.combinations(range(len(numbers)), 2):
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        low, high = sorted((numbers[i], numbers[j]))
        for operation, value in zip(OPERATIONS, fan(low, high), strict=True):
            if value is not None:
                out.append(((high, operation, low, value), rest))
    return out


def last_step(value: int, column: int, c: int, target: int) -> Step:
    """The step from ``value`` and ``c`` to the target, where ``value`` stands in that column of fan(target, c)."""
    if column == 0:
        return value, "-", c, target
    if column == 1:
        return (value, "+", c, target) if target >= c else (c, "-", value, target)
    if column == 2:
        return value, "/", c, target
    return (value, "*", c, target) if target >= c else (c, "/", value, target)


def write_step(step: Step) -> Words:
    """``26+22=48`` as words."""
    a, operation, b, value = step
    return [str(a), operation, str(b), "=", str(value)]


def search(numbers: tuple[int, int, int], target: int) -> tuple[Words, list[Step] | None]:
    """What a child writes, and the two steps it found."""
    words: Words = []
    for place, c in enumerate(numbers):
        a, b = (n for k, n in enumerate(numbers) if k != place)
        wanted, made = fan(target, c), fan(a, b)
        words += [str(target), str(c), ":", *map(_column, wanted), "|", str(a), str(b), ":", *map(_column, made)]
        hit = next((k for k, value in enumerate(made) if value is not None and value in wanted), None)
        if hit is not None:
            low, high = sorted((a, b))
            value = made[hit]
            assert value is not None
            return [*words, str(value)], [
                (high, OPERATIONS[hit], low, value),
                last_step(value, wanted.index(value), c, target),
            ]
        words.append("no")
    return words, None


def near_miss(numbers: tuple[int, int, int], target: int) -> int:
    """How close a search comes to a false verdict: the least distance of a made value to a wanted one, but 0."""
    distances = [
        abs(made - wanted)
        for place, c in enumerate(numbers)
        for made in fan(*(n for k, n in enumerate(numbers) if k != place))
        for wanted in fan(target, c)
        if made is not None and wanted is not None and made != wanted
    ]
    return min(distances, default=LARGEST)


def _column(value: int | None) -> str:
    return "_" if value is None else str(value)


@dataclass(frozen=True)
class Teacher:
    """Writes traces in a model's vocabulary."""

    dialect: SpawnJoin
    vocabulary: dict[str, int]

    def trace(self, problem: Problem, rng: random.Random, children: int, hard: bool = False) -> Trace:
        """One trace with at most that many of the children written out, up to half of them with a result.

        Of those without, ``hard`` takes the nearest misses. The join shows the results of all children, or, as after an
        early join, of one alone, with even odds.
        """
        steps = first_steps(problem.numbers)
        messages = [[*write_step(step), *map(str, rest)] for step, rest in steps]
        searches = [search((step[3], *rest), problem.target) for step, rest in steps]
        results: list[Words | None] = []
        threads = []
        for (step, _), message, (words, found) in zip(steps, messages, searches, strict=True):
            result = None
            if found:
                result = write_step(step)
                for later in found:
                    result += [",", *write_step(later)]
                words = [*words, "<return>", *result]
            results.append(result)
            threads.append(self._child(len(threads), message, [*words, "</thread>"]))
        solved = [k for k, result in enumerate(results) if result]
        failed = [k for k, result in enumerate(results) if not result]
        rng.shuffle(solved)
        rng.shuffle(failed)
        if hard:
            failed.sort(key=lambda k: near_miss((steps[k][0][3], *steps[k][1]), problem.target))
        most = max(1, children // 2)
        kept = sorted((solved[:most] + failed + solved[most:])[:children])
        shown = results
        if solved and rng.random() < 0.5:
            shown = [result if k == solved[0] else None for k, result in enumerate(results)]
        answer = next((result for result in shown if result), ["no"])
        block = [word for message in messages for word in ["<sep>", *message]]
        root = Thread(
            label="0",
            spans=[
                Span(ids=self.ids([word for n in problem.numbers for word in (",", str(n))][1:])
                     + self.ids(["=", str(problem.target)]), origin="prompt"),
                Span(ids=self.ids(["<spawn>", *block[1:], "</spawn>"]), origin="sampled"),
                Span(ids=self.dialect.write_join([r and self.ids(r) for r in shown]), origin="injected"),
                Span(ids=self.ids([*answer, "<eos>"]), origin="sampled"),
            ],
            forks=[Fork(at=2, join="message", children=[threads[k] for k in kept])],
        )  # fmt: skip
        return Trace(dialect=self.dialect.name, model="teacher", prompt=str(problem), root=root)

    def _child(self, number: int, message: Words, words: Words) -> Thread:
        return Thread(
            label=f"0.{number}",
            parent="0",
            spans=[
                Span(ids=self.ids(["<thread>", *message]), origin="injected"),
                Span(ids=self.ids(words), origin="sampled"),
            ],
        )

    def ids(self, words: Words) -> list[int]:
        """Words to token ids."""
        return [self.vocabulary[word] for word in words]
