"""The protocol of a task: problems, a strict verifier and a key, for data, rewards and evaluations alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class TaskProblem:
    """One problem of a task.

    Attributes:
        key: two problems are the same if their keys are; splits and resumed runs go by it.
        text: what a model is asked; a prompt template may put it into more text.
        reference: what the verifier needs to know.
    """

    key: str
    text: str
    reference: Any


class Task(Protocol):
    """Problems that can be verified."""

    @property
    def name(self) -> str:
        """Under which it is chosen, options and all."""
        ...

    def train(self, seed: int) -> Iterator[TaskProblem]:
        """Problems for training, without end, the same for the same seed; none of them is in the test set."""
        ...

    def test(self, count: int | None = None) -> list[TaskProblem]:
        """The first ``count`` problems of the test set, or all of it.

        Raises:
            InputError: the test set has fewer.
        """
        ...

    def correct(self, problem: TaskProblem, answer: str | None) -> bool:
        """Whether an answer is right; never raises, whatever a model wrote."""
        ...

    def vote(self, answer: str | None) -> str | None:
        """What an answer counts as in a majority vote, equal texts being one answer; None if it has no vote."""
        ...
