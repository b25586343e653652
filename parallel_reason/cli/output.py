"""Where traces go as they finish: the console, as text or as JSON, and a JSONL file."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.text import Text

from parallel_reason.cli.console import one_line, print_error
from parallel_reason.cli.tree import plain_lines
from parallel_reason.trace import Trace, TraceWriter

PROMPT_SHOWN = 80  # characters of a prompt in its summary


@dataclass
class Tally:
    """How many traces were written to one place, how many were not, and why the first was not."""

    place: str
    written: int = 0
    lost: int = 0
    reason: str = ""

    def lose(self, error: OSError) -> None:
        """Count a trace that could not be written."""
        self.lost += 1
        self.reason = self.reason or error.strerror or type(error).__name__

    def __str__(self) -> str:
        return f"{self.lost} of {self.lost + self.written} traces are not {self.place} ({self.reason})"


class TraceOutput:
    """Takes finished traces, one at a time; each is written at once, and one that cannot be written stops no other.

    What was not written is reported in one line when it is closed.

    Attributes:
        closed_pipe: the error by which standard output was found closed.
    """

    def __init__(
        self, console: Console | None, *, json: bool = False, out: Path | None = None, many: bool = False
    ) -> None:
        """Traces go to the file ``out``, and to the console: as JSON, or as text, numbered if there are ``many``.

        Raises:
            InputError: the file cannot be written.
        """
        self.console = console
        self.json = json
        self.many = many
        self.closed_pipe: BrokenPipeError | None = None
        self._file = TraceWriter(out) if out else None
        self._in_file = Tally(f"in {out}")
        self._printed = Tally("printed")

    def __enter__(self) -> "TraceOutput":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()
        for tally in (self._in_file, self._printed):
            if tally.lost:
                print_error(f"{tally}; {tally.written} are")

    @property
    def complete(self) -> bool:
        """Whether every trace was written wherever it had to be; a closed pipe does not count."""
        return not self._in_file.lost and not self._printed.lost

    @property
    def wanted(self) -> bool:
        """Whether a trace that finishes now still goes anywhere."""
        return self.closed_pipe is None or self._file is not None

    def add(self, trace: Trace, *, drawn: bool = False) -> None:
        """Write a trace; ``drawn`` if its threads are on the console already."""
        if self._file:
            try:
                self._file.write(trace)
                self._in_file.written += 1
            except OSError as error:
                self._in_file.lose(error)
        if self.console is None or self.closed_pipe:
            return
        if self._printed.lost:  # what was printed may end within a line: nothing can follow it
            self._printed.lost += 1
            return
        try:
            self._print(self.console, trace, drawn)
            self._printed.written += 1
        except BrokenPipeError as error:
            self.closed_pipe = error
        except OSError as error:
            self._printed.lose(error)

    def _print(self, console: Console, trace: Trace, drawn: bool) -> None:
        text = Text(trace.to_json()) if self.json else summary(trace, numbered=self.many)
        if console.is_terminal:
            console.print(text, soft_wrap=True)
            return
        lines = [] if self.json or drawn else plain_lines(trace)
        data = "\n".join([*lines, text.plain, ""]).encode("utf-8", "backslashreplace")
        while data:  # no buffer, which would be written again when the process ends
            data = data[os.write(sys.stdout.fileno(), data) :]


def summary(trace: Trace, *, numbered: bool = False) -> Text:
    """A trace in one line; ``numbered`` says which prompt and which sample of it, as `Trace` counts them."""
    counts = trace.ledger
    prompt = trace.prompt if len(trace.prompt) <= PROMPT_SHOWN else trace.prompt[: PROMPT_SHOWN - 1] + "…"
    line = Text(f"{trace.prompt_index}.{trace.sample}  " if numbered else "", style="")
    line.append(f"{one_line(prompt)}  ")
    answer = f"no answer: {trace.stop_reason}" if trace.answer is None else trace.answer
    line.append(one_line(answer), style="bold")
    return line.append(
        f"  ({counts.sampled_tokens} tokens in {counts.threads} threads, critical path {counts.critical_path_tokens}, "
        f"{counts.wall_s:.2f} s)",
        style="bright_black",
    )
