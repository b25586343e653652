"""Traces that a program writes for the embedded model to learn from.

The parent makes every first step and spawns one child for each, which searches on (see `search`). A child that found a
way returns all three steps; the parent copies the first result.
"""

import random
from dataclasses import dataclass

from parallel_reason import SpawnJoin, Trace
from parallel_reason.countdown.problem import Problem
from parallel_reason.trace import Fork, Span, Thread
from rl.search import Words, first_steps, nearest_miss, solution, write_search, write_step


@dataclass(frozen=True)
class Teacher:
    """Writes traces in a model's vocabulary.

    Attributes:
        children: at most so many children of a trace are written out, up to half of them with a result.
        stumbles: chance of a slip where a model may slip, see `write_search`.
        hard: whether the children without a result are those that miss it most narrowly, or any.
    """

    dialect: SpawnJoin
    vocabulary: dict[str, int]
    children: int
    stumbles: float = 0.0
    hard: bool = False

    def trace(self, problem: Problem, rng: random.Random) -> Trace:
        """One trace; its join shows the results of all children, or, as after an early join, of one, with even odds."""
        opened = first_steps(problem.numbers)
        messages = [[*write_step(step), *map(str, numbers[1:])] for step, numbers in opened]
        results: list[Words | None] = []
        for step, numbers in opened:
            found = solution(numbers, problem.target)
            results.append(found and [word for s in [step, *found] for word in [",", *write_step(s)]][1:])
        solved = [k for k, result in enumerate(results) if result]
        failed = [k for k, result in enumerate(results) if not result]
        rng.shuffle(solved)
        rng.shuffle(failed)
        if self.hard:
            failed.sort(key=lambda k: nearest_miss(opened[k][1], problem.target))
        most = max(1, self.children // 2)
        kept = sorted((solved[:most] + failed + solved[most:])[: self.children])
        searches = [write_search(opened[k][1], problem.target, rng, self.stumbles) for k in kept]
        shown = results
        if solved and rng.random() < 0.5:
            shown = [result if k == solved[0] else None for k, result in enumerate(results)]
        answer = next((result for result in shown if result), ["no"])
        block = [word for message in messages for word in ["<sep>", *message]]
        given = [word for n in problem.numbers for word in (",", str(n))][1:]
        root = Thread(
            label="0",
            spans=[
                Span(ids=self.ids([*given, "=", str(problem.target)]), origin="prompt"),
                Span(ids=self.ids(["<spawn>", *block[1:], "</spawn>"]), origin="sampled"),
                Span(ids=self.dialect.write_join([r and self.ids(r) for r in shown]), origin="injected"),
                Span(ids=self.ids([*answer, "<eos>"]), origin="sampled"),
            ],
            forks=[
                Fork(
                    at=2,
                    join="message",
                    children=[
                        self._child(f"0.{place}", messages[k], search, results[k])
                        for place, (k, search) in enumerate(zip(kept, searches, strict=True))
                    ],
                )
            ],
        )
        return Trace(dialect=self.dialect.name, model="teacher", prompt=str(problem), root=root)

    def _child(self, label: str, message: Words, search: list[Words], result: Words | None) -> Thread:
        *before, last = search
        end = ["<return>", *result, "</thread>"] if result else ["</thread>"]
        spans = [Span(ids=self.ids(["<thread>", *message]), origin="injected")]
        for number, words in enumerate([*before, [*last, *end]]):
            spans.append(Span(ids=self.ids(words), origin="injected" if number % 2 else "sampled"))
        return Thread(label=label, parent="0", spans=spans)

    def ids(self, words: Words) -> list[int]:
        """Words to token ids."""
        return [self.vocabulary[word] for word in words]
