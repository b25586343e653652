"""Traces that a solver writes for the embedded model to be trained on.

The parent writes every first step and spawns one child for each, which searches on (`rl.search`). A child that finds a
solution returns all three steps; the parent copies the first result. It may also go on in waves: it spawns some of the
first steps, and only when none of them led to a solution some of those that are left.
"""

import math
import random
from dataclasses import dataclass

from parallel_reason import Fork, Span, SpawnJoin, Thread, Trace
from parallel_reason.tasks.countdown import Problem
from rl.search import Numbers, Step, Words, first_steps, nearest_miss, solution, write_search, write_step


@dataclass(frozen=True, eq=False)
class Lesson:
    """A first step, and what a child makes of it.

    Attributes:
        message: what the child is given: the step, and the numbers that are left but for its result.
        numbers: all that are left.
        result: all three steps, if it leads to a solution.
    """

    message: Words
    numbers: Numbers
    target: int
    result: Words | None


@dataclass(frozen=True)
class Teacher:
    """Writes traces in a model's vocabulary.

    Attributes:
        vocabulary: token id of every word.
        children: how many children of a trace are written out at most, up to half of them with a result.
        error_rate: probability of an injected error where values are near; see `write_search`.
        hard_negatives: whether the children without a result are those that come nearest to a false match, or random.
        least_spawned: each wave spawns the next of the first steps that are left, a share of them that is drawn for
            this wave, from this one up to 1. At 1 there is one wave, of all.
    """

    dialect: SpawnJoin
    vocabulary: dict[str, int]
    children: int
    error_rate: float = 0.0
    hard_negatives: bool = False
    least_spawned: float = 1.0

    def trace(self, problem: Problem, rng: random.Random) -> Trace:
        """One trace; its last join has the results of all children, or, as after an early join, of one: even odds."""
        waves = self._waves([self._lesson(*opened, problem.target) for opened in first_steps(problem.numbers)], rng)
        spawned = [lesson for wave in waves for lesson in wave]
        solved = [lesson for lesson in spawned if lesson.result]
        failed = [lesson for lesson in spawned if not lesson.result]
        written = self._written_out(solved, failed, rng)
        children: list[Thread] = []
        forks = []
        for wave in waves:
            first = len(children)
            for lesson in (lesson for lesson in wave if lesson in written):
                search = write_search(lesson.numbers, problem.target, rng, self.error_rate)
                children.append(self._child(f"0.{len(children)}", lesson.message, search, lesson.result))
            forks.append(list(range(first + 1, len(children) + 1)))
        shown = solved[:1] if solved and rng.random() < 0.5 else solved
        root = self._root(problem, waves, shown, forks)
        return Trace(
            dialect=self.dialect.name,
            model="teacher",
            prompt=str(problem),
            prompt_ids=root.spans[0].ids,
            threads=[root, *children],
        )

    def _lesson(self, step: Step, numbers: Numbers, target: int) -> Lesson:
        steps = solution(numbers, target)
        result = _joined([write_step(each) for each in (step, *steps)], ",") if steps else None
        return Lesson([*write_step(step), *map(str, numbers[1:])], numbers, target, result)

    def _waves(self, lessons: list[Lesson], rng: random.Random) -> list[list[Lesson]]:
        """The waves up to the first that has a result, each in the order of all first steps."""
        if self.least_spawned == 1:
            return [lessons]
        waves, left = [], lessons
        while left:
            count = math.ceil(rng.uniform(self.least_spawned, 1) * len(left))
            waves.append(left[:count])
            left = [] if any(lesson.result for lesson in left[:count]) else left[count:]
        return waves

    def _written_out(self, solved: list[Lesson], failed: list[Lesson], rng: random.Random) -> list[Lesson]:
        """Those whose children are written out; puts both lists in a random order."""
        rng.shuffle(solved)
        rng.shuffle(failed)
        if self.hard_negatives:
            failed.sort(key=lambda lesson: nearest_miss(lesson.numbers, lesson.target))
        most = max(1, self.children // 2)
        return (solved[:most] + failed + solved[most:])[: self.children]

    def _root(self, problem: Problem, waves: list[list[Lesson]], shown: list[Lesson], forks: list[list[int]]) -> Thread:
        """The parent.

        Args:
            shown: the lessons whose results the last join has.
            forks: for each wave the places of its children in the trace.
        """
        given = _joined([[str(n)] for n in problem.numbers], ",")
        spans = [Span(ids=self.ids([*given, "=", str(problem.target)]), origin="prompt")]
        records = []
        for wave, children in zip(waves, forks, strict=True):
            spawn = ["<spawn>", *_joined([lesson.message for lesson in wave], "<sep>"), "</spawn>"]
            spans.append(Span(ids=self.ids(spawn), origin="sampled"))
            records.append(Fork(at=len(spans), join_rule="message", children=children))
            results = [self.ids(lesson.result) if lesson.result and lesson in shown else None for lesson in wave]
            spans.append(Span(ids=self.dialect.write_join(results), origin="injected"))
        answer = next((lesson.result for lesson in waves[-1] if lesson.result and lesson in shown), ["no"])
        spans.append(Span(ids=self.ids([*answer, "<eos>"]), origin="sampled"))
        return Thread(label="0", spans=spans, forks=records, status="finished")

    def _child(self, label: str, message: Words, search: list[Words], result: Words | None) -> Thread:
        *before, last = search
        end = ["<return>", *result, "</thread>"] if result else ["</thread>"]
        spans = [Span(ids=self.ids(["<thread>", *message]), origin="injected")]
        for number, words in enumerate([*before, [*last, *end]]):
            spans.append(Span(ids=self.ids(words), origin="injected" if number % 2 else "sampled"))
        return Thread(label=label, parent=0, spans=spans, status="finished")

    def ids(self, words: Words) -> list[int]:
        """Words to token ids."""
        return [self.vocabulary[word] for word in words]


def _joined(parts: list[Words], separator: str) -> Words:
    return [word for part in parts for word in (separator, *part)][1:]
