"""Any dataset of reasoning-gym as a task, with its own scorer."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from parallel_reason.errors import InputError
from parallel_reason.tasks.grading import boxed, check_installed, graded
from parallel_reason.tasks.task import TaskProblem

TEST_SEED, TEST_SIZE = 0, 500
ENDLESS = 2**31 - 1  # a dataset makes its entries as they are asked for


@dataclass(frozen=True)
class GymTask:
    """A dataset by its name in reasoning-gym.

    Raises:
        InputError: reasoning-gym is not installed, or has no such dataset.
    """

    dataset: str

    def __post_init__(self) -> None:
        """Refuse a name that is not there before anything is sampled."""
        check_installed("reasoning_gym")
        from reasoning_gym.factory import DATASETS

        if self.dataset not in DATASETS:
            raise InputError(f"reasoning-gym has no dataset {self.dataset!r}; it has {', '.join(sorted(DATASETS))}")

    @property
    def name(self) -> str:
        """As `parallel_reason.tasks.find` takes it."""
        return f"reasoning_gym:{self.dataset}"

    def train(self, seed: int) -> Iterator[TaskProblem]:
        """See `Task.train`."""
        tested = {problem.key for problem in self.test()}
        entries = _entries(self.dataset, TEST_SEED + 1 + seed, ENDLESS)
        for number in itertools.count():
            problem = _problem(entries[number])
            if problem.key not in tested:
                yield problem

    def test(self, count: int | None = None) -> list[TaskProblem]:
        """See `Task.test`."""
        if count is not None and count > TEST_SIZE:
            raise InputError(f"{count} problems were asked for; the test set of {self.name} has {TEST_SIZE}")
        entries = _entries(self.dataset, TEST_SEED, TEST_SIZE)
        return [_problem(entries[number]) for number in range(TEST_SIZE if count is None else count)]

    def correct(self, problem: TaskProblem, answer: str | None) -> bool:
        """See `Task.correct`: the full score."""
        found = boxed(answer)
        return found is not None and graded(_score, self.dataset, found, problem.reference) >= 1

    def vote(self, answer: str | None) -> str | None:
        """See `Task.vote`: the text of the answer."""
        return boxed(answer)


def _problem(entry: dict[str, Any]) -> TaskProblem:
    return TaskProblem(entry["question"], entry["question"], entry)


@cache
def _entries(dataset: str, seed: int, size: int) -> Any:
    from reasoning_gym import create_dataset

    return create_dataset(dataset, seed=seed, size=size)


def _score(dataset: str, answer: str, entry: dict[str, Any]) -> float:
    return float(_entries(dataset, TEST_SEED, TEST_SIZE).score_answer(answer=answer, entry=entry))
