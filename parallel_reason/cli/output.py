"""Where traces go as they finish: the console, as text or as JSON, and a JSONL file."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.text import Text

from parallel_reason.cli.console import clipped, in_lines, in_words, one_line, print_error
from parallel_reason.cli.tree import plain_lines
from parallel_reason.trace import Trace, TraceWriter

TITLE_WIDTH = 40  # cells of a prompt in its summary


def why(error: OSError) -> str:
    """What the system says of an error."""
    return error.strerror or type(error).__name__


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
        self.reason = self.reason or why(error)

    def __str__(self) -> str:
        return f"{self.lost} of {self.lost + self.written} traces are not {self.place} ({self.reason})"


class TraceOutput:
    """Takes finished traces, one at a time; each is written at once, and one that cannot be written stops no other.

    What was not written is reported in one line when it is closed.

    Attributes:
        transcript: makes of a trace what is printed of its threads; if None, they are a line each, and on a terminal
            none.
        verdict: what is said of a trace's answer beside its counts.
        closed_pipe: the error by which standard output was found closed.
    """

    def __init__(
        self,
        console: Console | None,
        *,
        json: bool = False,
        out: Path | None = None,
        many: bool = False,
        titles: Sequence[str] = (),
    ) -> None:
        """Traces go to the file ``out``, and to the console: as JSON, or as text, numbered if there are ``many``.

        Args:
            titles: what a person knows the prompts by; the prompts themselves if empty.

        Raises:
            InputError: the file cannot be written.
        """
        self.console = console
        self.json = json
        self.many = many
        self.titles = titles
        self.transcript: Callable[[Trace], str] | None = None
        self.verdict: Callable[[Trace], str] | None = None
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

    def add(self, trace: Trace, *, shown: bool = False) -> None:
        """Write a trace; ``shown`` if its threads are on the console already."""
        if self._file:
            try:
                self._file.write(trace)
                self._in_file.written += 1
            except OSError as error:
                self._in_file.lose(error)
        if self.console is None or self.closed_pipe:
            return
        if self._print(self.console, self._text(trace, shown)):
            self._printed.written += 1
        elif not self.closed_pipe:
            self._printed.lost += 1

    def line(self, text: str) -> bool:
        """Print a line of a trace that still runs; whether traces are still wanted."""
        if self.console is not None and not self.closed_pipe:
            self._print(self.console, Text(text))
        return self.wanted

    def _text(self, trace: Trace, shown: bool) -> Text:
        """What is printed of a trace."""
        if self.json:
            return Text(trace.to_json())
        threads = []
        if self.transcript:
            threads = [in_lines(self.transcript(trace).rstrip("\n"))]
        elif not shown and self.console and not self.console.is_terminal:
            threads = plain_lines(trace)
        title = self.titles[trace.prompt_index] if self.titles else trace.prompt
        verdict = self.verdict(trace) if self.verdict else ""
        whole = shown and not self.transcript
        last = summary(trace, title, numbered=self.many, verdict=verdict, whole=whole)
        return Text("\n").join([*map(Text, threads), last])

    def _print(self, console: Console, text: Text) -> bool:
        """Print a text, and note why if that fails; whether it is printed."""
        if self._printed.reason:  # what was printed may end within a line: nothing can follow it
            return False
        try:
            if console.is_terminal:
                console.print(text, soft_wrap=True)
                return True
            data = f"{text.plain}\n".encode("utf-8", "backslashreplace")
            while data:  # no buffer, which would be written again when the process ends
                data = data[os.write(sys.stdout.fileno(), data) :]
        except BrokenPipeError as error:
            self.closed_pipe = error
            return False
        except OSError as error:
            self._printed.reason = why(error)
            return False
        return True


def summary(trace: Trace, title: str, *, numbered: bool = False, verdict: str = "", whole: bool = False) -> Text:
    """A trace in one line.

    Args:
        title: what stands for its prompt.
        numbered: whether to say which prompt and which sample of it, as `Trace` counts them.
        verdict: what is said of the answer.
        whole: whether an answer of several lines, or what there is of one that was cut short, is printed above the line
            as it is.
    """
    counts = trace.ledger
    line = Text(f"{trace.prompt_index}.{trace.sample}  " if numbered else "")
    written = trace.text if trace.answer is None else trace.answer
    above = whole and ("\n" in written or trace.answer is None)
    if above:
        line.append(f"{in_lines(written.strip())}\n", style="bold")
    line.append(f"{clipped(in_words(title), TITLE_WIDTH)}  ")
    if trace.answer is None:
        line.append(f"no answer: {one_line(trace.stop_reason)}  ", style="bold")
    elif not above:
        line.append(f"{one_line(trace.answer)}  ", style="bold")
    said = f"{verdict}; " if verdict else ""
    threads = "1 thread" if counts.threads == 1 else f"{counts.threads} threads"
    return line.append(
        f"({said}{counts.sampled_tokens} tokens in {threads}, critical path {counts.critical_path_tokens}, "
        f"{counts.wall_s:.2f} s)",
        style="bright_black",
    )
