"""``parallel-reason demo``: the embedded model on held-out problems, in parallel and one thread after another."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parallel_reason.cli.batch import check_none_failed, run_batch
from parallel_reason.cli.console import PlainConsole, status
from parallel_reason.cli.output import TraceOutput, summary
from parallel_reason.cli.tree import draw
from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.tasks.countdown.problem import Problem
from parallel_reason.tasks.countdown.split import HELD_OUT, held_out
from parallel_reason.tasks.countdown.verify import solves, verdict
from parallel_reason.trace import Trace, aggregate

if TYPE_CHECKING:
    from parallel_reason.llm import ParallelLLM


@dataclass(frozen=True)
class Row:
    """One way of running the problems.

    Attributes:
        serial: whether one thread decoded at a time, so that every sampled token was waited for.
        wall_s: seconds for all problems together.
    """

    name: str
    serial: bool
    traces: list[Trace]
    wall_s: float


def demo(
    problems: Annotated[int, typer.Option(min=1, max=HELD_OUT, help="How many held-out problems.")] = 32,
    out: Annotated[Path, typer.Option(help="The JSONL file of the traces; it is replaced.")] = Path("runs/demo.jsonl"),
) -> None:
    """Solve Countdown problems that the embedded model has not seen in training, and compare with one thread at a time.

    Exit status 0 if every trace ran and was written, else 1.
    """
    from parallel_reason.llm import ParallelLLM

    console = PlainConsole()
    tasks = held_out(problems)
    try:
        out.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None
    with TraceOutput(None, out=out) as output:
        with status("loading the embedded Countdown model on vLLM"):
            llm = ParallelLLM()
        with llm:
            _one(llm, console, tasks[0])
            console.print(Text.assemble("\n", (f"{problems} problems", "bold"), " at once.\n"))
            parallel = _run(llm, console, "in parallel", tasks, output, serial=False)
            serial = _run(llm, console, "one after another", tasks, output, serial=True)
    console.print(_table(tasks, [parallel, serial]))
    console.print(
        f"Parallel children took {parallel.wall_s / serial.wall_s:.2f} of the time that one child after another took. "
        f"Traces: {out}",
        soft_wrap=True,
    )
    check_none_failed([*parallel.traces, *serial.traces])
    if not output.complete:
        raise typer.Exit(1)


def _one(llm: "ParallelLLM", console: Console, task: Problem) -> None:
    """Run one problem, drawn live on a terminal."""
    console.print(
        Text.assemble(("One problem", "bold"), f", {task}: every first step is tried by a thread of its own.\n")
    )
    if console.is_terminal:
        trace = asyncio.run(draw(llm.stream(str(task)), console, str(task)))
    else:
        (trace,) = llm.generate(str(task))
    said = "" if trace.answer is None else verdict(trace.answer, task)
    console.print(summary(trace, str(task), verdict=said), soft_wrap=True)


def _run(
    llm: "ParallelLLM", console: Console, name: str, tasks: list[Problem], output: TraceOutput, *, serial: bool
) -> Row:
    limits = Limits(threads=1) if serial else Limits()
    started = time.perf_counter()
    traces = run_batch(llm, [str(task) for task in tasks], output, console, name=name, limits=limits)
    return Row(name, serial, traces, time.perf_counter() - started)


def _table(tasks: list[Problem], rows: list[Row]) -> Table:
    """What the runs came to, in less than 80 columns."""
    names = ("", "solved", "tokens", "critical\npath", "acceler-\nation", "cached", "seconds")
    table = Table(*names, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        counts = aggregate(trace.ledger for trace in row.traces)
        critical = counts.sampled_tokens if row.serial else counts.critical_path_tokens
        table.add_row(
            row.name,
            f"{sum(solves(t.answer, task) for t, task in zip(row.traces, tasks, strict=True))} of {len(tasks)}",
            f"{counts.sampled_tokens / len(tasks):.0f}",
            f"{critical / len(tasks):.0f}",
            f"{1.0 if row.serial else counts.acceleration_of_sums:.2f}",
            "-" if counts.cached_share is None else f"{counts.cached_share:.0%}",
            f"{row.wall_s:.1f}",
        )
    return table
