"""``parallel-reason demo``: the embedded model on held-out problems, in parallel and one thread after another."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from parallel_reason.cli.output import Sink, draw, run_all, summary
from parallel_reason.countdown.problem import Problem, held_out
from parallel_reason.countdown.verify import solves
from parallel_reason.limits import Limits
from parallel_reason.trace import Trace

if TYPE_CHECKING:
    from parallel_reason.llm import ParallelLLM


@dataclass(frozen=True)
class Row:
    """One way of running the problems: its traces, and the wall-clock seconds they took together."""

    name: str
    traces: list[Trace]
    wall_s: float


def demo(
    problems: Annotated[int, typer.Option(min=1, max=2000, help="How many held-out problems.")] = 32,
    out: Annotated[Path, typer.Option(help="Where the traces go, as JSONL.")] = Path("runs/demo.jsonl"),
) -> None:
    """Solve Countdown problems that the embedded model has never seen, and compare with one thread at a time."""
    from parallel_reason.llm import ParallelLLM

    console = Console(highlight=False)
    tasks = held_out(problems)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    with console.status("loading the embedded Countdown model on vLLM"):
        llm = ParallelLLM()
    with llm, Sink(None, out=out) as sink:
        console.print(f"[bold]One problem[/bold], {tasks[0]}: every first step is tried by a thread of its own.\n")
        if console.is_terminal:
            first = asyncio.run(draw(llm.stream(str(tasks[0])), console))
        else:
            first = llm.generate(str(tasks[0]))
        console.print(summary(first), soft_wrap=True)
        console.print(f"\n[bold]{problems} problems[/bold] at once.\n")
        parallel = _run(llm, console, "in parallel", tasks, Limits(), sink)
        serial = _run(llm, console, "one after another", tasks, Limits(threads=1), sink)
    console.print(_table(tasks, [parallel, serial]))
    console.print(
        f"Parallel children took {parallel.wall_s / serial.wall_s:.2f} of the time that one child after another took. "
        f"Traces: {out}",
        soft_wrap=True,
    )


def _run(llm: "ParallelLLM", console: Console, name: str, tasks: list[Problem], limits: Limits, sink: Sink) -> Row:
    begun = time.perf_counter()
    traces = run_all(llm, [str(task) for task in tasks], sink, console, name=name, limits=limits)
    return Row(name, traces, time.perf_counter() - begun)


def _table(tasks: list[Problem], rows: list[Row]) -> Table:
    table = Table("", "solved", "tokens", "critical path", "acceleration", "cached", "seconds")
    for row in rows:
        counts = [trace.ledger for trace in row.traces]
        sampled = sum(count.sampled_tokens for count in counts)
        # One child after another, every sampled token is waited for.
        critical = sampled if row.name.endswith("another") else sum(count.critical_path_tokens for count in counts)
        table.add_row(
            row.name,
            f"{sum(solves(t.answer, task) for t, task in zip(row.traces, tasks, strict=True))} of {len(tasks)}",
            f"{sampled / len(tasks):.0f}",
            f"{critical / len(tasks):.0f}",
            f"{sampled / critical:.2f}",
            f"{sum(c.cached_tokens for c in counts) / sum(c.prefilled_tokens for c in counts):.0%}",
            f"{row.wall_s:.1f}",
        )
    return table
