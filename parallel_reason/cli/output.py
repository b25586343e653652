"""Where traces go as they finish: a live tree or plain lines on the console, JSON, and a JSONL file."""

import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from parallel_reason.cli.tree import TreeView, plain_lines
from parallel_reason.errors import InputError
from parallel_reason.events import Event, Finished
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

if TYPE_CHECKING:
    from parallel_reason.llm import ParallelLLM


async def draw(events: AsyncIterator[Event], console: Console) -> Trace:
    """Draw a stream of events as a tree until its trace is finished."""
    view = TreeView(rows=max(4, console.height - 4))
    with Live(console=console, refresh_per_second=10) as live:
        async for event in events:
            view.add(event)
            live.update(view.draw(console.width - 2))
            if isinstance(event, Finished):
                return event.trace
    raise AssertionError("a stream ends with Finished")


def progress_bar(console: Console) -> Progress:
    """A bar for many traces; it vanishes when done where there is no terminal."""
    columns = (TextColumn("{task.description:18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=not console.is_terminal, disable=not console.is_terminal)


def run_all(
    llm: "ParallelLLM",
    prompts: Sequence[str],
    sink: "Sink",
    console: Console,
    *,
    name: str = "traces",
    sampling: SamplingParams | None = None,
    limits: Limits | None = None,
) -> list[Trace]:
    """Run prompts at once, ``sampling.n`` traces of each, under a bar with a name; every trace goes to the sink."""
    sampling = sampling or SamplingParams()
    with progress_bar(console) as progress:
        bar = progress.add_task(name, total=len(prompts) * sampling.n)

        def finished(index: int, trace: Trace) -> None:
            sink.add(index, trace)
            progress.advance(bar)

        traces: list[Trace] = llm.generate(list(prompts), sampling, limits, on_trace=finished)
        return traces


class Sink:
    """Takes finished traces from any thread; each is written and flushed at once, so that Ctrl-C loses none.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, console: Console | None, *, json: bool = False, out: Path | None = None) -> None:
        """Traces go to ``out`` as JSONL, and to the console, if any: as JSON, or as text."""
        self.console = console
        self.json = json
        self._lock = threading.Lock()
        try:
            self._out: IO[str] | None = None if out is None else open(out, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror}") from None

    def __enter__(self) -> "Sink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._out:
            self._out.close()

    def add(self, index: int, trace: Trace, *, drawn: bool = False) -> None:
        """Write a trace; ``drawn`` if its threads are on the console already."""
        with self._lock:
            if self._out:
                self._out.write(trace.to_json() + "\n")
                self._out.flush()
            if self.console is None:
                return
            if self.json:
                print(trace.to_json(), flush=True)
                return
            if not self.console.is_terminal and not drawn:
                print("\n".join(plain_lines(trace)), flush=True)
            self.console.print(summary(trace), soft_wrap=True)


def summary(trace: Trace) -> Text:
    """A trace in one line."""
    counts = trace.ledger
    line = Text(f"{trace.prompt}  ")
    line.append(trace.answer if trace.answer is not None else f"no answer: {trace.why}", style="bold")
    return line.append(
        f"  ({counts.sampled_tokens} tokens in {counts.threads} threads, critical path {counts.critical_path_tokens}, "
        f"{counts.wall_s:.2f} s)",
        style="bright_black",
    )
