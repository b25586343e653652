"""What a person sees of a training run: tables of the newest steps and of a fleet's engines on a terminal, or a line a
step elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from transformers import PrinterCallback, TrainerCallback

from parallel_reason.fleet.status import EngineStatus

ROWS = 12  # steps in the table
COLUMNS = (  # of the log, where it has them, and how they are headed
    ("step", "step"), ("loss", "loss"), ("reward", "reward"), ("accuracy", "right"), ("forked", "forked"),
    ("malformed", "malformed"), ("threads", "threads"), ("sampled_tokens", "tokens"),
    ("critical_path_tokens", "critical path"), ("entropy", "entropy"), ("grad_norm", "gradient"),
    ("largest_sampler_mismatch", "mismatch"), ("sampled_tokens_per_s", "tokens/s"), ("eval_accuracy", "test: right"),
)  # fmt: skip


class ShownProgress(TrainerCallback):  # type: ignore[misc]
    """Shows every log of a trainer, and how long it still takes."""

    def __init__(
        self, console: Console | None = None, engines: Callable[[], Sequence[EngineStatus]] | None = None
    ) -> None:
        """On standard error, so that output can be piped; ``engines`` are those of a fleet."""
        self._engines = engines
        self._console = console or Console(stderr=True)
        self._logs: list[dict[str, float]] = []
        self._progress = Progress(
            TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            console=self._console,
        )  # fmt: skip
        self._live: Live | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Begin at the step at which a run goes on."""
        self._task = self._progress.add_task("steps", total=state.max_steps, completed=state.global_step)
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._shown, console=self._console, refresh_per_second=2)
            self._live.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Move on."""
        self._progress.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any) -> None:
        """A row of the table, or a line."""
        row = {"step": state.global_step, **(logs or {})}
        if not {"loss", "eval_accuracy"} & row.keys():
            return
        self._logs = [*self._logs, row][-ROWS:]
        if self._live is None:
            known = [f"{head} {_short(row[name])}" for name, head in COLUMNS if name in row]
            self._console.print(f"{', '.join(known)} (of {state.max_steps})", highlight=False, soft_wrap=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Leave the table as it is."""
        self.close()

    def close(self) -> None:
        """End the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _shown(self) -> Group:
        columns = [(name, head) for name, head in COLUMNS if any(name in row for row in self._logs)]
        table = Table(*(head for _, head in columns), box=None)
        for row in self._logs:
            table.add_row(*(_short(row[name]) if name in row else "" for name, _ in columns))
        return Group(table, *([] if self._engines is None else [_fleet(self._engines())]), self._progress)


@contextmanager
def show_progress(trainer: Any, engines: Callable[[], Sequence[EngineStatus]] | None = None) -> Iterator[None]:
    """Around a trainer's work: show its progress in this way instead of transformers' own."""
    shown = ShownProgress(engines=engines)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(shown)
    try:
        yield
    finally:
        shown.close()


def _fleet(engines: Sequence[EngineStatus]) -> Table:
    table = Table("engine", "state", "traces", "finished", "tokens", "restarts", box=None)
    for one in engines:
        counts = (one.traces, one.finished, one.sampled_tokens, one.restarts)
        table.add_row(one.name, one.state, *map(str, counts))
    return table


def _short(value: Any) -> str:
    number = float(value)
    return f"{number:.0f}" if number == int(number) or abs(number) >= 100 else f"{number:.3g}"
