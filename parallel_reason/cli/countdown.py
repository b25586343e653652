"""The embedded model on the command line: it solves Countdown alone, and what it answers can be verified."""

from collections.abc import Callable, Sequence

from parallel_reason.cli.console import print_note
from parallel_reason.cli.prompts import LINE_BREAK
from parallel_reason.errors import InputError
from parallel_reason.tasks.countdown.problem import Problem
from parallel_reason.tasks.countdown.verify import verdict
from parallel_reason.trace import Trace

NUMBERS = 4  # of every problem that the embedded model learned from


def embedded_verdict(prompts: Sequence[str]) -> Callable[[Trace], str]:
    """Read prompts as problems for the embedded model.

    Returns:
        What to say of the answer of a trace: whether it solves its problem.

    Raises:
        InputError: a prompt is no problem.
    """
    problems = [_problem(prompt) for prompt in prompts]
    others = [problem for problem in problems if len(problem.numbers) != NUMBERS]
    if others:
        print_note(
            f"the embedded model learned problems of {NUMBERS} numbers; {others[0]} has {len(others[0].numbers)}"
        )
    return lambda trace: "" if trace.answer is None else verdict(trace.answer, problems[trace.prompt_index])


def _problem(prompt: str) -> Problem:
    try:
        return Problem.parse(prompt)
    except InputError as error:
        if len(LINE_BREAK.split(prompt.strip())) > 1:
            raise InputError("the embedded model takes one Countdown problem a prompt: add --lines") from None
        raise InputError(f"the embedded model solves Countdown only: {error}, or give another --model") from None
