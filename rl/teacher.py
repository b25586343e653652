"""Traces that a solver writes for the embedded model to be trained on.

The parent writes every first step and spawns one child for each, which searches on (`rl.search`). A child that finds a
solution returns all three steps; the parent copies the first result.
"""

import random
from dataclasses import dataclass

from parallel_reason import Fork, Span, SpawnJoin, Thread, Trace
from parallel_reason.tasks.countdown import Problem
from rl.search import Words, first_steps, nearest_miss, solution, write_search, write_step


@dataclass(frozen=True)
class Teacher:
    """Writes traces in a model's vocabulary.

    Attributes:
        vocabulary: token id of every word.
        children: how many children of a trace are written out at most, up to half of them with a result.
        error_rate: probability of an injected error where values are near; see `write_search`.
        hard_negatives: whether the children without a result are those that come nearest to a false match, or random.
    """

    dialect: SpawnJoin
    vocabulary: dict[str, int]
    children: int
    error_rate: float = 0.0
    hard_negatives: bool = False

    def trace(self, problem: Problem, rng: random.Random) -> Trace:
        """One trace; its join has the results of all children, or, as after an early join, of one, with even odds."""
        opened = first_steps(problem.numbers)
        messages = [[*write_step(step), *map(str, numbers[1:])] for step, numbers in opened]
        results: list[Words | None] = []
        for step, numbers in opened:
            steps = solution(numbers, problem.target)
            results.append(_joined([write_step(s) for s in (step, *steps)], ",") if steps else None)
        solved = [k for k, result in enumerate(results) if result]
        failed = [k for k, result in enumerate(results) if not result]
        rng.shuffle(solved)
        rng.shuffle(failed)
        if self.hard_negatives:
            failed.sort(key=lambda k: nearest_miss(opened[k][1], problem.target))
        most = max(1, self.children // 2)
        kept = sorted((solved[:most] + failed + solved[most:])[: self.children])
        children = []
        for place, k in enumerate(kept):
            search = write_search(opened[k][1], problem.target, rng, self.error_rate)
            children.append(self._child(f"0.{place}", messages[k], search, results[k]))
        if solved and rng.random() < 0.5:
            results = [result if k == solved[0] else None for k, result in enumerate(results)]
        root = self._root(problem, messages, results, len(children))
        return Trace(
            dialect=self.dialect.name,
            model="teacher",
            prompt=str(problem),
            prompt_ids=root.spans[0].ids,
            threads=[root, *children],
        )

    def _root(self, problem: Problem, messages: list[Words], results: list[Words | None], children: int) -> Thread:
        given = _joined([[str(n)] for n in problem.numbers], ",")
        answer = next((result for result in results if result), ["no"])
        return Thread(
            label="0",
            spans=[
                Span(ids=self.ids([*given, "=", str(problem.target)]), origin="prompt"),
                Span(ids=self.ids(["<spawn>", *_joined(messages, "<sep>"), "</spawn>"]), origin="sampled"),
                Span(ids=self.dialect.write_join([self.ids(r) if r else None for r in results]), origin="injected"),
                Span(ids=self.ids([*answer, "<eos>"]), origin="sampled"),
            ],
            forks=[Fork(at=2, join_rule="message", children=list(range(1, children + 1)))],
            status="finished",
        )

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
