"""What grafts gain on vLLM, and what they cost where nobody grafts, as ratios from one run.

    python -m benchmarks.graft                                # every part
    python -m benchmarks.graft --only join --models 3M        # one of them
    python -m benchmarks.graft >> notes.md                    # piped, tables are Markdown
    python -m benchmarks.graft --models 8B --dtype bfloat16   # on a GPU

Real vLLM, float32 unless said otherwise, on CPUs in blocks of 32 tokens, random Qwen3 weights (seed 0), random ids,
greedy. Ways are run in turn, and a ratio is that of one turn; tables have median [least, most].

- join: from the end of the last child to the first token after the join (`benchmarks.join_latency`).
- fork: from the end of a parent of 2,011 tokens to the first token of its children (`benchmarks.fork_latency`).
- trace: many traces at once with forks and joins of Multiverse's shape, or the same number of tokens sampled by one
  thread (`benchmarks.shaped`).
- idle: plain requests on an engine that was started to graft, over one that was not (`benchmarks.idle`).
"""

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.fork_latency import compare_forks
from benchmarks.idle import compare_idle
from benchmarks.join_latency import WINDOW, compare_join_requests
from benchmarks.models import SIZES, model_of
from benchmarks.report import Report
from benchmarks.shaped import compare_joins

CASES = "2x128,2x512,8x128,8x512,32x128,32x512"


class Part(StrEnum):
    """What can be run alone."""

    JOIN = "join"
    FORK = "fork"
    TRACE = "trace"
    IDLE = "idle"


def main(
    only: Annotated[list[Part] | None, typer.Option(help="Run this part alone; may be given again.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each ratio; starts of idle are four times as many.")] = 5,
    models: Annotated[
        str, typer.Option(help=f"Of {', '.join(SIZES)}; trace and idle are on the first alone.")
    ] = "3M,80M",
    dtype: Annotated[str, typer.Option(help="Of weights and KV.")] = "float32",
    cases: Annotated[str, typer.Option(help="Of join: children x tokens.")] = CASES,
    traces: Annotated[int, typer.Option(min=1, help="Of trace: how many at once.")] = 64,
    trace_pairs: Annotated[int, typer.Option(min=1, help="Runs of trace, minutes each.")] = 2,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables as Markdown on a terminal too.")] = False,
) -> None:
    """Print every figure as a table, a part at a time.

    A full run takes long on two cores, mostly prefilling the 80M model's largest joins again; --models, --cases and
    --only make it short.
    """
    sizes = models.split(",")
    if unknown := [size for size in sizes if size not in SIZES]:
        raise typer.BadParameter(f"no model {unknown[0]!r}; there is {', '.join(SIZES)}", param_hint="--models")
    chosen = [model_of(size, dtype, WINDOW) for size in sizes]
    report = Report(Console(highlight=False), markdown or not sys.stdout.isatty())
    parts: dict[Part, Callable[[], Awaitable[None]]] = {
        Part.JOIN: lambda: compare_join_requests(chosen, report, [_pair(case) for case in cases.split(",")], pairs),
        Part.FORK: lambda: compare_forks(chosen, report, pairs),
        Part.TRACE: lambda: compare_joins(chosen[0], report, traces, trace_pairs),
        Part.IDLE: lambda: compare_idle(chosen[0], report, pairs),
    }

    async def run() -> None:
        for part in only or Part:
            await parts[part]()

    asyncio.run(run())
    for model in chosen:
        shutil.rmtree(model.folder)


def _pair(case: str) -> tuple[int, int]:
    children, tokens = map(int, case.split("x"))
    return children, tokens


if __name__ == "__main__":
    typer.run(main)
