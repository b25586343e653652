"""What `show`, `report` and `export` share: which tokenizer reads a trace, and who says whether an answer is right."""

from collections.abc import Callable
from typing import Annotated

import typer

from parallel_reason import dialects
from parallel_reason.cli.console import print_note
from parallel_reason.engines.models import load_tokenizer
from parallel_reason.errors import InputError
from parallel_reason.tasks import find
from parallel_reason.trace import Trace
from parallel_reason.viewer import Run, TokenTexts, local_tokenizer

TokenizerOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="The folder or Hub id of the tokenizer. Default: of the model that a trace names."
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(help="The task whose verifier judges traces that have no verdict, such as countdown. See eval."),
]


class Tokenizers:
    """The token texts of traces, by model and dialect; each tokenizer is loaded once."""

    def __init__(self, name: str | None) -> None:
        """Read traces with the tokenizer of that name, or each with its own.

        Raises:
            ModelError: there is no such tokenizer.
        """
        self._given = load_tokenizer(name, "give a model folder or Hub id with --tokenizer") if name else None
        self._texts: dict[tuple[str, str], TokenTexts | None] = {}

    def __call__(self, trace: Trace) -> TokenTexts | None:
        """The token texts of a trace; None if its tokenizer is not on this machine, of which the user gets a note."""
        key = (trace.model, trace.dialect)
        if key not in self._texts:
            tokenizer = self._given or local_tokenizer(trace.model)
            if tokenizer is None:
                print_note(f"no tokenizer of {trace.model!r} is here, so single tokens have no text: give --tokenizer")
            tags = dialects.find(trace.dialect).tags.values() if trace.dialect in dialects.known() else ()
            self._texts[key] = None if tokenizer is None else TokenTexts(tokenizer, tags)
        return self._texts[key]


def judge_by(runs: list[Run], task: str | None) -> None:
    """Have a task's verifier judge the traces of runs that have no verdict.

    Raises:
        InputError: there is no such task.
    """
    if task is None:
        return
    judge = judge_of(task)
    for run in runs:
        run.judge = judge


def judge_of(task: str) -> Callable[[Trace], bool | None]:
    """Whether a trace's answer is right; None if its problem is none of the task's test set."""
    found = find(task)
    problems = {problem.key: problem for problem in found.test()}
    texts = {problem.text: problem for problem in problems.values()}

    def judge(trace: Trace) -> bool | None:
        problem = problems.get(trace.task) if trace.task is not None else texts.get(trace.prompt)
        problem = problem or texts.get(trace.prompt)
        return None if problem is None else found.correct(problem, trace.answer)

    return judge


def nth(number: int, total: int, place: str) -> InputError:
    """The error of a trace that is not there."""
    return InputError(f"{place} has traces 0 to {total - 1}, not {number}")
