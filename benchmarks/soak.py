"""Thousands of traces on vLLM in little memory: nothing may leak, hang or be inexact.

    python -m benchmarks.soak --traces 5000

A random model writes every dialect that grafts, so traces fork, nest, join and end as they like. Most are left alone;
others meet a deadline, are cancelled (the task, or the trace), have a request that vLLM refuses or one that begins with
released KV, or run through a reset of vLLM's cache that takes all pins. Admission counts twice the KV blocks there are,
so that vLLM preempts requests and gives up pins.

oneDNN keeps what it compiled for the last 1,024 shapes of a batch, which looks like a leak for the first ten thousand
steps; here it keeps 16.

Exits with 1 if KV is held in the end, if memory grew by more than 5% after the first tenth, if a trace
hung, raised, ended in a way that its fate does not explain, or differs from plain transformers.
"""

import asyncio
import gc
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import psutil
import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from benchmarks.fates import DIALECTS, FATES, Ended, run_one
from benchmarks.grammars import build
from parallel_reason import Trace
from parallel_reason.engines.vllm.engine import VllmEngine
from parallel_reason.exactness import BOUND, compare, load_reference

GROWTH = 1.05
ENDS = ("finished", "length", "cancelled", "failed", "task cancelled", "raised", "hung")
EXPLAINED = {  # ends that only these fates may have
    "cancelled": {"deadline", "trace cancelled"},
    "task cancelled": {"task cancelled"},
    "raised": set(),
    "hung": set(),
}
KNOWN = ("out of KV memory", "limits.", "vocabulary", "was released")  # causes of failures that fates explain


class State(NamedTuple):
    """What is held and used at one moment.

    Attributes:
        free: whether all KV blocks are.
        references: how many sources of KV are still referred to.
        own, below: resident bytes of this process, and of vLLM's.
        preempted: requests, by vLLM; ``repeated``: those sent again because a pin was lost.
    """

    free: bool
    references: int
    own: int
    below: int
    preempted: int
    repeated: int


@dataclass
class Soak:
    """Everything that is counted.

    Attributes:
        every: of these traces, one is kept for comparison with the reference.
        ends: traces, by fate and end.
        failures: threads, by why they failed, and what was raised.
        kept: traces to be compared with the reference.
    """

    engine: VllmEngine
    seed: int
    every: int
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    forks: int = 0
    nested: int = 0
    kept: list[Trace] = field(default_factory=list)

    async def run(self, numbers: Iterator[int], at_once: int, advance: Callable[[], None]) -> None:
        """Run traces with these numbers, some at a time."""

        async def worker() -> None:
            for number in numbers:
                self.count(number, await run_one(self.engine, self.seed, number))
                advance()

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())

    def count(self, number: int, ended: Ended) -> None:
        """Note how a trace ended."""
        self.ends[ended.fate, ended.how] += 1
        if ended.error:
            self.failures[alike(ended.error)] += 1
        if trace := ended.trace:
            failed = (thread for thread in trace.threads if thread.status == "failed")
            self.failures.update(alike(thread.stop_reason) for thread in failed)
            self.forks += trace.ledger.forks
            self.nested += any(thread.depth > 1 for thread in trace.threads)
            if number % self.every == 0:
                self.kept.append(trace)

    async def state(self) -> State:
        """What is held and used when nothing runs."""
        gc.collect()  # what a cancelled task held goes with it
        await asyncio.sleep(0.1)
        free, own = await self.engine.kv_is_free(), psutil.Process()
        below = sum(process.memory_info().rss for process in own.children(recursive=True))
        client = self.engine.graft_client
        assert client is not None
        return State(free, len(client.references), own.memory_info().rss, below, preemptions(), client.repeated)

    def wrong(self, first: State, warm: State, last: State) -> Iterator[str]:
        """Everything that should not be."""
        if not last.free or last.references != first.references:
            yield f"KV is held in the end: all blocks free {last.free}, references {last.references}"
        for name, before, after in (("this process", warm.own, last.own), ("vLLM's processes", warm.below, last.below)):
            if after > GROWTH * before:
                yield f"memory of {name} grew by {after / before - 1:.1%} after the first tenth"
        for (fate, end), count in self.ends.items():
            if fate not in EXPLAINED.get(end, FATES):
                yield f"{count} traces with the fate {fate!r} ended {end}"
        for reason, count in self.failures.items():
            if not any(known in reason for known in KNOWN):
                yield f"{count} threads failed: {reason}"


def alike(text: str) -> str:
    """The same for every thread that failed for one reason."""
    return re.sub(r"'[^']*/[^']*'|\d+", "_", text)


def preemptions() -> int:
    """How many requests vLLM preempted."""
    from vllm.v1.metrics.reader import get_metrics_snapshot

    return sum(int(metric.value) for metric in get_metrics_snapshot() if metric.name == "vllm:num_preemptions")


def inexact(folder: str, traces: list[Trace]) -> tuple[float, int]:
    """The largest difference from the reference in nats, and how many sampled tokens that is out of."""
    reference = load_reference(folder)
    compared = [compare(reference, trace) for trace in traces]
    return max(one.largest for one in compared), sum(len(one.ids) for one in compared)


def main(
    traces: Annotated[int, typer.Option(min=10, help="How many.")] = 5000,
    at_once: Annotated[int, typer.Option(min=1, help="Traces that run at once.")] = 32,
    blocks: Annotated[int, typer.Option(min=64, help="KV blocks of 32 tokens.")] = 128,
    every: Annotated[int, typer.Option(min=1, help="Of these traces, one is compared with transformers.")] = 25,
    seed: int = 0,
) -> None:
    """Run traces that fork, fail and are cancelled in little memory, and look at what is left."""
    disable_progress_bar()
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "16"
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        build(folder, "qwen3", list(DIALECTS), seed)
        engine = runner.run(
            VllmEngine.start(
                folder, graft=True, dtype="float32", context=1024, num_gpu_blocks_override=blocks,
                disable_log_stats=False,
            )
        )  # fmt: skip
        assert engine.admission.blocks is not None
        engine.admission.blocks *= 2
        soak = Soak(engine, seed, every)
        states = [runner.run(soak.state())]
        columns = *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("traces", total=traces)
            for numbers in (range(traces // 10), range(traces // 10, traces)):
                runner.run(soak.run(iter(numbers), at_once, lambda: progress.advance(bar)))
                states.append(runner.run(soak.state()))
        runner.run(engine.close())
        largest, sampled = inexact(folder, soak.kept)
    report(console, soak, states)
    console.print(f"{len(soak.kept)} traces beside transformers: {largest:.1e} nats at most, {sampled:,} tokens")
    wrong = [*soak.wrong(*states), *[f"inexact by {largest:.1e} nats"] * (not largest < BOUND)]
    for line in wrong:
        console.print(f"wrong: {line}", markup=False)
    raise typer.Exit(bool(wrong))


def report(console: Console, soak: Soak, states: list[State]) -> None:
    """Print what was counted."""
    table = Table("", "KV blocks free", "KV references", "MiB here", "MiB in vLLM's processes", "preempted", "repeated")
    for when, state in zip(("start", "after a tenth", "end"), states, strict=True):
        table.add_row(
            when, "all" if state.free else "not all", str(state.references), f"{state.own / 2**20:,.0f}",
            f"{state.below / 2**20:,.0f}", f"{state.preempted:,}", f"{state.repeated:,}",
        )  # fmt: skip
    console.print(table)
    table = Table("fate", *ENDS)
    for fate in FATES:
        table.add_row(fate, *(f"{soak.ends[fate, end]:,}" for end in ENDS))
    console.print(table)
    console.print(f"forks: {soak.forks:,}; traces with children of children that ended: {soak.nested:,}")
    for reason, count in soak.failures.most_common():
        console.print(f"{count:,} x {reason}", markup=False)


if __name__ == "__main__":
    typer.run(main)
