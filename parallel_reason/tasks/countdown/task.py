"""Countdown as a task: one sampler, one verifier and one split for data, rewards and evaluations."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from parallel_reason.tasks.countdown.problem import Problem, draw
from parallel_reason.tasks.countdown.split import HELD_OUT, held_out, held_out_keys
from parallel_reason.tasks.countdown.verify import NONE_FOUND, solves
from parallel_reason.tasks.grading import LONGEST_ANSWER
from parallel_reason.tasks.task import TaskProblem


@dataclass(frozen=True)
class Countdown:
    """Problems of APR's distribution.

    Attributes:
        size: how many numbers a problem has, 3 to 6; the embedded model knows 4.
    """

    size: int = 4

    @property
    def name(self) -> str:
        """``countdown``, or ``countdown:5`` for another size."""
        return "countdown" if self.size == 4 else f"countdown:{self.size}"

    def train(self, seed: int) -> Iterator[TaskProblem]:
        """See `Task.train`; every problem is drawn anew."""
        rng = random.Random(f"countdown {self.size} {seed}")
        excluded = held_out_keys(self.size)
        while True:
            problem = draw(rng, self.size)
            if problem.key not in excluded:
                yield _as_task_problem(problem)

    def test(self, count: int | None = None) -> list[TaskProblem]:
        """See `Task.test`."""
        return [_as_task_problem(problem) for problem in held_out(HELD_OUT if count is None else count, self.size)]

    def correct(self, problem: TaskProblem, answer: str | None) -> bool:
        """See `Task.correct`."""
        return solves(answer, problem.reference)

    def vote(self, answer: str | None) -> str | None:
        """See `Task.vote`: the steps, without blanks."""
        steps = "".join((answer or "").split())
        return steps[:LONGEST_ANSWER] if steps and steps != NONE_FOUND else None


def _as_task_problem(problem: Problem) -> TaskProblem:
    """The key does not depend on the order of the numbers, as that of the split does not."""
    return TaskProblem(f"{','.join(map(str, sorted(problem.numbers)))}={problem.target}", str(problem), problem)
