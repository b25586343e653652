"""Consoles on which nothing is markup, text from elsewhere made safe to print, and what shows that work goes on.

Prompts, paths, model text and error messages may hold ``[INST]``, ``:smile:`` or control characters. The consoles here
parse neither markup nor emoji codes; styles are given as `rich.text.Text`.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

INTERRUPTED = 130  # exit status after Ctrl-C
STOPPED = "stopped; what was finished is kept"
NOTE_S = 30.0  # seconds between notes of how far a run is, where there is no terminal

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class PlainConsole(Console):
    """A rich console that prints strings as they are; a closed pipe raises BrokenPipeError."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False, file: IO[str] | None = None) -> None:
        """On standard output, on standard error, or on a file."""
        super().__init__(stderr=stderr, file=file, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """Called while a BrokenPipeError is handled; rich would end the process here, whatever thread this is."""
        raise


def one_line(text: str) -> str:
    """``text`` with every line break, control character and lone surrogate written as its escape in Python."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def in_words(text: str) -> str:
    """``text`` in one line, with a space in place of blanks and line breaks."""
    return one_line(" ".join(text.split()))


def in_lines(text: str) -> str:
    """``text`` with its line feeds and tabs kept, and all else as `one_line` writes it."""
    return "\n".join("\t".join(map(one_line, line.split("\t"))) for line in text.split("\n"))


def clipped(text: str, width: int) -> str:
    """The beginning of a text, in at most ``width`` cells of a terminal; ``…`` stands for the rest."""
    if cell_len(text) <= width:
        return text
    return _fitting(text, width - 1) + "…"


def tail(text: str, width: int) -> str:
    """The end of a text, in at most ``width`` cells of a terminal; ``…`` stands for the rest."""
    if len(text) <= width and cell_len(text) <= width:
        return text
    return "…" + _fitting(text[::-1], width - 1)[::-1]


def _fitting(text: str, width: int) -> str:
    """As many characters from the beginning as ``width`` cells hold."""
    used = 0
    for count, character in enumerate(text):
        used += cell_len(character)
        if used > width:
            return text[:count]
    return text


def print_error(message: str) -> None:
    """Print an error on standard error, in one line."""
    _print_line(Text.assemble(("error:", "red"), " ", one_line(message)))


def print_note(message: str) -> None:
    """Print on standard error, in one line, what the user should know about work that goes on."""
    _print_line(Text.assemble(("note:", "yellow"), " ", one_line(message)))


def _print_line(text: Text) -> None:
    PlainConsole(stderr=True, soft_wrap=True).print(text)


@contextmanager
def status(text: str) -> Iterator[None]:
    """A spinner with a text and the time on standard error while something lasts; nothing without a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with os.fdopen(os.dup(2), "w") as stderr:  # engines send standard error to a log while they start
        console = PlainConsole(file=stderr)
        shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        shown.add_task(one_line(text), total=None)
        with shown:
            yield


def progress_bar(console: Console) -> Progress:
    """A bar that counts, with the time until now and the time that is left; nothing where there is no terminal.

    Standard output is not redirected to the console of the bar: it may be a pipe while the bar is on a terminal.
    """
    columns = (
        TextColumn("{task.description:18}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, redirect_stdout=False, expand=True)


@contextmanager
def counting(console: Console, name: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on ``console``, and where that is no terminal a note on standard error every `NOTE_S` seconds.

    Yields:
        What to call for each of ``total`` things that is done.
    """
    started = noted = time.monotonic()
    done = 0
    with progress_bar(console) as progress:
        bar = progress.add_task(name, total=total)

        def advance() -> None:
            nonlocal done, noted
            done += 1
            progress.advance(bar)
            now = time.monotonic()
            if not console.is_terminal and now - noted >= NOTE_S:
                noted = now
                left = (now - started) / done * (total - done)
                print_note(f"{name}: {done} of {total}, {left:.0f} s left")

        yield advance
