"""Published test sets, from the Hub or from what `datasets` has of it on this machine."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from parallel_reason.errors import InputError, first_line
from parallel_reason.tasks.jsonl import GRADING, check_grader, problem_of, vote
from parallel_reason.tasks.task import TaskProblem


@dataclass(frozen=True)
class HubSet:
    """Where a test set is.

    Attributes:
        repository, config, split: on the Hub; a folder with data files will do as a repository.
        kind: how it is graded, see `GRADING`.
        problem, answer: names of its fields.
        wrong: names of the fields of wrong choices; they and the answer are put into an order drawn for each problem.
    """

    repository: str
    kind: str
    split: str = "test"
    config: str | None = None
    problem: str = "problem"
    answer: str = "answer"
    wrong: tuple[str, ...] = ()


SETS = {
    "aime24": HubSet("Maxwell-Jia/AIME_2024", "aime", "train", problem="Problem", answer="Answer"),
    "aime25": HubSet("math-ai/aime25", "aime"),
    "aime26": HubSet("MathArena/aime_2026", "aime", "train"),
    "amc23": HubSet("math-ai/amc23", "jsonl", problem="question"),
    "math500": HubSet("HuggingFaceH4/MATH-500", "jsonl"),
    "gpqa": HubSet(
        "Idavidrein/gpqa", "choice", "train", "gpqa_diamond", "Question", "Correct Answer",
        ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class HubTask:
    """A test set by its name in `SETS`.

    Raises:
        InputError: a package that it needs is not installed.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse what could not be read or graded before anything is sampled."""
        check_grader(self._set.kind)
        if find_spec("datasets") is None:
            raise InputError(f"{self.name} needs datasets; install parallel-reason[tasks], or give a file of your own")

    @property
    def _set(self) -> HubSet:
        return SETS[self.name]

    def train(self, seed: int) -> Iterator[TaskProblem]:
        """See `Task.train`: there is nothing to train on."""
        raise InputError(f"{self.name} is for tests only: train on problems of another task")

    def test(self, count: int | None = None) -> list[TaskProblem]:
        """See `Task.test`."""
        problems = _problems(self._set)
        if count is not None and count > len(problems):
            raise InputError(f"{count} problems were asked for; {self.name} has {len(problems)}")
        return list(problems[:count])

    def correct(self, problem: TaskProblem, answer: str | None) -> bool:
        """See `Task.correct`."""
        return GRADING[self._set.kind].same(problem.reference, answer)

    def vote(self, answer: str | None) -> str | None:
        """See `Task.vote`."""
        return vote(self._set.kind, answer)


@cache
def _problems(where: HubSet) -> tuple[TaskProblem, ...]:
    from datasets import load_dataset

    try:
        rows = load_dataset(where.repository, where.config, split=where.split)
    except Exception as error:  # what a download, a cache or a data file raises is of many packages
        raise InputError(
            f"cannot load {where.repository} ({first_line(error)}); give its problems as {where.kind}:FILE.jsonl"
        ) from None
    return tuple(_problem(where, row) for row in rows)


def _problem(where: HubSet, row: dict[str, Any]) -> TaskProblem:
    record = {"problem": row.get(where.problem), "answer": row.get(where.answer)}
    if where.wrong:
        choices = [row.get(name) for name in (where.answer, *where.wrong)]
        record["choices"] = random.Random(str(record["problem"])).sample(choices, len(choices))
    try:
        return problem_of(record, where.kind)
    except InputError as error:
        raise InputError(f"{where.repository}: {error}") from None
