"""Problems from files: a JSON object a line, with a ``problem`` and its ``answer``."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from parallel_reason.errors import InputError
from parallel_reason.tasks.grading import check_installed, same_integer, same_math
from parallel_reason.tasks.task import TaskProblem

GRADING: dict[str, Callable[[str, str | None], bool]] = {"aime": same_integer, "jsonl": same_math}


@dataclass(frozen=True)
class JsonlTask:
    """Problems of a test file and, for training, of another one.

    Attributes:
        kind: ``jsonl``, graded by math-verify, or ``aime``, by integers.
        test_file, train_file: the latter may be absent; a problem of both is left out of training.
    """

    kind: str
    test_file: Path
    train_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be graded before anything is sampled."""
        if self.kind == "jsonl":
            check_installed("math_verify")

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
        problems = [problem for problem in read_problems(self.train_file) if problem.key not in tested]
        if not problems:
            raise InputError(f"every problem of {self.train_file} is in {self.test_file} as well")
        for epoch in itertools.count():
            yield from random.Random(f"{seed} {epoch}").sample(problems, len(problems))

    def test(self, count: int | None = None) -> list[TaskProblem]:
        """See `Task.test`."""
        problems = read_problems(self.test_file)
        if count is not None and count > len(problems):
            raise InputError(f"{count} problems were asked for; {self.test_file} has {len(problems)}")
        return problems[:count]

    def correct(self, problem: TaskProblem, answer: str | None) -> bool:
        """See `Task.correct`."""
        return GRADING[self.kind](problem.reference, answer)


def read_problems(file: Path) -> list[TaskProblem]:
    """The problems of a file; the key of each is its text.

    Raises:
        InputError: it cannot be read, or a line of it has no problem or no answer.
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
        text = record.get("problem") if isinstance(record, dict) else None
        answer = record.get("answer") if isinstance(record, dict) else None
        if not isinstance(text, str) or not text.strip() or not isinstance(answer, str | int | float):
            raise InputError(f"{file}, line {number}: give a text under 'problem' and its 'answer'")
        problems.append(TaskProblem(text, text, str(answer)))
    if not problems:
        raise InputError(f"{file} has no problems")
    return problems
