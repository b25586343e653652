"""Where traces go as they finish: a live tree or plain lines on the console, JSON, and a JSONL file."""

import threading
from pathlib import Path
from types import TracebackType
from typing import IO

from rich.console import Console
from rich.live import Live
from rich.status import Status

from parallel_reason.cli.tree import TreeView, live_tree, plain_lines
from parallel_reason.events import Event, Finished
from parallel_reason.trace import Trace


class Printer:
    """Takes events from the engine's thread. A trace is written as soon as it is finished, and flushed."""

    def __init__(self, console: Console, *, json: bool, out: Path | None, draw: bool) -> None:
        """``draw``: show the tree while the one trace runs, if the console is a terminal."""
        self.console = console
        self.json = json
        self.draw = draw and console.is_terminal and not json
        self.traces: dict[int, Trace] = {}
        self._lock = threading.Lock()
        self._view = TreeView()
        self._live: Live | None = None
        self._status: Status | None = None
        self._out: IO[str] | None = None if out is None else open(out, "a", encoding="utf-8")  # noqa: SIM115

    def __enter__(self) -> "Printer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.quiet()
        if self._live:
            self._live.stop()
        if self._out:
            self._out.close()

    def say(self, what: str) -> None:
        """Show what is going on, on a terminal only."""
        self.quiet()
        if self.console.is_terminal and not self.json:
            self._status = self.console.status(what)
            self._status.start()

    def quiet(self) -> None:
        """End what `say` shows."""
        if self._status:
            self._status.stop()
            self._status = None

    def event(self, index: int, event: Event) -> None:
        """Take an event of the trace with that index."""
        with self._lock:
            if self.draw:
                self._draw(event)
            if isinstance(event, Finished):
                self._finish(index, event.trace)

    def _draw(self, event: Event) -> None:
        if self._live is None:
            self.quiet()
            self._live = live_tree(self.console)
            self._live.start()
        self._view.add(event)
        self._live.update(self._view.draw(self.console.width - 2), refresh=isinstance(event, Finished))

    def _finish(self, index: int, trace: Trace) -> None:
        self.traces[index] = trace
        if self._out:
            self._out.write(trace.to_json() + "\n")
            self._out.flush()
        if self._live:
            self._live.stop()
        if self.json:
            print(trace.to_json(), flush=True)
            return
        if not self.console.is_terminal:
            for line in plain_lines(trace):
                print(line, flush=True)
        counts = trace.ledger
        self.console.print(
            f"{trace.prompt}  [bold]{trace.answer if trace.answer is not None else 'no answer: ' + trace.why}[/bold]  "
            f"({counts.sampled_tokens} tokens in {counts.threads} threads, critical path "
            f"{counts.critical_path_tokens}, {counts.wall_s:.2f} s)",
            highlight=False,
            soft_wrap=True,
        )
