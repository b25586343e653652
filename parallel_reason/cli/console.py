"""Consoles on which nothing is markup, and text from elsewhere made safe to print.

Prompts, paths, model text and error messages may hold ``[INST]``, ``:smile:`` or control characters. The consoles here
parse neither markup nor emoji codes; styles are given as `rich.text.Text`.
"""

import re
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class PlainConsole(Console):
    """A rich console that prints strings as they are; a closed pipe raises BrokenPipeError."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        """On standard output, or on standard error."""
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """Called while a BrokenPipeError is handled; rich would end the process here, whatever thread this is."""
        raise


def one_line(text: str) -> str:
    """``text`` with every line break, control character and lone surrogate written as its escape in Python."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def print_error(message: str) -> None:
    """Print an error on standard error, in one line."""
    console = PlainConsole(stderr=True, soft_wrap=True)
    console.print(Text.assemble(("error:", "red"), " ", one_line(message)))


def status(text: str) -> AbstractContextManager[object]:
    """A spinner with a text on standard error while something lasts; nothing where there is no terminal."""
    console = PlainConsole(stderr=True)
    return console.status(Text(text)) if console.is_terminal else nullcontext()


def progress_bar(console: Console) -> Progress:
    """A bar that counts; nothing where there is no terminal.

    Standard output is not redirected to the console of the bar: it may be a pipe while the bar is on a terminal.
    """
    columns = (
        TextColumn("{task.description:18}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, redirect_stdout=False)
