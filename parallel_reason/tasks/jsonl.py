"""Problems from files: a JSON object a line, with a ``problem`` and its ``answer``."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_reason.errors import InputError
from parallel_reason.tasks.grading import boxed, check_installed, integer, letter, same_integer, same_letter, same_math
from parallel_reason.tasks.task import TaskProblem


@dataclass(frozen=True)
class Grading:
    """How answers of one kind are read.

    Attributes:
        same: whether an answer is the reference.
        vote: what an answer counts as in a vote.
    """

    same: Callable[[str, str | None], bool]
    vote: Callable[[str | None], str | int | None]


GRADING = {
    "aime": Grading(same_integer, integer),
    "jsonl": Grading(same_math, boxed),
    "choice": Grading(same_letter, letter),
}


@dataclass(frozen=True)
class JsonlTask:
    """Problems of a test file and, for training, of another one.

    Attributes:
        kind: ``jsonl``, graded by math-verify, ``aime``, by integers, or ``choice``, by the letter of a choice.
        test_file, train_file: the latter may be absent; a problem of both is left out of training.
    """

    kind: str
    test_file: Path
    train_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be graded before anything is sampled."""
        check_grader(self.kind)

    @property
    def name(self) -> str:
        """As `parallel_reason.tasks.find` takes it."""
        files = [str(file) for file in (self.train_file, self.test_file) if file]
        return ":".join([self.kind, *files])

    def train(self, seed: int) -> Iterator[TaskProblem]:
        """See `Task.train`: the file in another order each time, again and again.

        Raises:
            InputError: there is no file for training.
        """
        if self.train_file is None:
            raise InputError(f"{self.name} has test problems only; give {self.kind}:TRAIN.jsonl:{self.test_file}")
        tested = {problem.key for problem in self.test()}
        problems = [problem for problem in read_problems(self.train_file, self.kind) if problem.key not in tested]
        if not problems:
            raise InputError(f"every problem of {self.train_file} is in {self.test_file} as well")
        for epoch in itertools.count():
            yield from random.Random(f"{seed} {epoch}").sample(problems, len(problems))

    def test(self, count: int | None = None) -> list[TaskProblem]:
        """See `Task.test`."""
        problems = read_problems(self.test_file, self.kind)
        if count is not None and count > len(problems):
            raise InputError(f"{count} problems were asked for; {self.test_file} has {len(problems)}")
        return problems[:count]

    def correct(self, problem: TaskProblem, answer: str | None) -> bool:
        """See `Task.correct`."""
        return GRADING[self.kind].same(problem.reference, answer)

    def vote(self, answer: str | None) -> str | None:
        """See `Task.vote`."""
        return vote(self.kind, answer)


def check_grader(kind: str) -> None:
    """Raise InputError if what grades answers of a kind is not installed."""
    if kind == "jsonl":
        check_installed("math_verify")


def vote(kind: str, answer: str | None) -> str | None:
    """What an answer of a kind counts as in a vote."""
    found = GRADING[kind].vote(answer)
    return None if found is None else str(found)


def read_problems(file: Path, kind: str = "jsonl") -> list[TaskProblem]:
    """The problems of a file; see `problem_of`.

    Raises:
        InputError: it cannot be read, or a line of it is no problem with its answer.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{file}, line {number}: {error.msg}") from None
        try:
            problems.append(problem_of(record, kind))
        except InputError as error:
            raise InputError(f"{file}, line {number}: {error}") from None
    if not problems:
        raise InputError(f"{file} has no problems")
    return problems


def problem_of(record: Any, kind: str) -> TaskProblem:
    """The problem of a record; its key is its text.

    Args:
        record: a ``problem``, its ``answer``, and for ``choice`` its ``choices``, of which the answer is one, or the
            letter of one.

    Raises:
        InputError: it is something else.
    """
    text = record.get("problem") if isinstance(record, dict) else None
    answer = record.get("answer") if isinstance(record, dict) else None
    if not isinstance(text, str) or not text.strip() or not isinstance(answer, str | int | float):
        raise InputError("give a text under 'problem' and its 'answer'")
    if kind == "choice":
        return _with_choices(text, str(answer), record.get("choices"))
    if kind == "aime" and integer(str(answer)) is None:
        raise InputError(f"{str(answer)!r:.60} is no integer, as answers of AIME are; for others write jsonl:FILE")
    return TaskProblem(text, text, str(answer))


def _with_choices(text: str, answer: str, choices: Any) -> TaskProblem:
    letters = "ABCDEFGHIJ"
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(letters):
        raise InputError(f"give 2 to {len(letters)} texts under 'choices'")
    named = dict(zip(letters, map(str, choices), strict=False))
    right = [answer] if answer in named else [name for name, choice in named.items() if choice == answer]
    if len(right) != 1:
        raise InputError(f"the answer {answer!r:.60} is {'none' if not right else 'more than one'} of the choices")
    listed = "\n".join(f"{name}) {choice}" for name, choice in named.items())
    return TaskProblem(text, f"{text}\n\n{listed}", right[0])
