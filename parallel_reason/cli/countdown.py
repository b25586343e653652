"""The embedded model on the command line: it solves Countdown alone, and what it answers can be verified."""

from collections.abc import Sequence
from dataclasses import dataclass

from parallel_reason.cli.prompts import LINE_BREAK
from parallel_reason.errors import InputError
from parallel_reason.tasks.countdown.problem import Problem
from parallel_reason.tasks.countdown.verify import verdict
from parallel_reason.trace import Trace

NUMBERS = 4  # of every problem that the embedded model learned from


@dataclass(frozen=True, slots=True)
class CountdownPrompts:
    """Prompts for the embedded model, read as problems."""

    problems: list[Problem]

    @classmethod
    def read(cls, prompts: Sequence[str]) -> "CountdownPrompts":
        """Read them.

        Raises:
            InputError: one is no problem.
        """
        return cls([_problem(prompt) for prompt in prompts])

    @property
    def note(self) -> str | None:
        """What the user should know of them; None if the model learned such problems."""
        other = next((problem for problem in self.problems if len(problem.numbers) != NUMBERS), None)
        if other is None:
            return None
        return f"the embedded model learned problems of {NUMBERS} numbers; {other} has {len(other.numbers)}"

    def verdict(self, trace: Trace) -> str:
        """What to say of the answer of a trace: whether it solves its problem."""
        return "" if trace.answer is None else verdict(trace.answer, self.problems[trace.prompt_index])


def _problem(prompt: str) -> Problem:
    try:
        return Problem.parse(prompt)
    except InputError as error:
        if len(LINE_BREAK.split(prompt.strip())) > 1:
            raise InputError("the embedded model takes one Countdown problem a prompt: add --lines") from None
        raise InputError(f"the embedded model solves Countdown only: {error}, or give another --model") from None
