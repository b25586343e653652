"""Thousands of traces on vLLM in little memory: nothing may leak, hang or be inexact.

    python -m evals.soak --traces 5000

A random model writes every dialect that grafts, so traces fork, nest, join and end as they like. Most are left alone;
others meet a fate: a deadline, their task cancelled, a request that vLLM refuses, one that begins with released KV, a
reset of vLLM's cache that takes all pins. The controller is told of twice the memory there is, so that vLLM preempts
requests and gives up pins.

oneDNN keeps what it compiled for the last 1,024 shapes of a batch, which looks like a leak for the first ten thousand
steps; here it keeps 16.

Exits with 1 if blocks or pins are held in the end, if memory grew by more than 5% after the first tenth, if a trace
hung, ended in a way that is not its fate's, or differs from plain transformers.
"""

import asyncio
import gc
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

import psutil
import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from evals.grammars import build
from parallel_reason import Limits, SamplingParams, Trace
from parallel_reason.check import BOUND, compare, load_reference
from parallel_reason.controller import Run
from parallel_reason.dialects import bind
from parallel_reason.engines.base import Decode, Decoded, OnTokens
from parallel_reason.engines.vllm import VllmEngine

DIALECTS = ("multiverse", "npr", "parallel_r1", "parathinker")  # that graft
FATES = {"none": 75, "deadline": 8, "cancelled": 8, "refused": 3, "released": 3, "reset": 3}  # weights
EARLY_S = 3.0  # cancels, deadlines and resets come within these seconds
HUNG_S = 600.0
GROWTH = 1.05
STOPPED = ("cancelled", "deadline")
KNOWN = ("out of KV memory", "limits.", "out of vocabulary", "this KV was released")  # causes of failures
ENDS = ("finished", "length", "cancelled", "failed", "raised", "hung")


class Fated:
    """An engine that spoils one request of a trace."""

    def __init__(self, engine: VllmEngine, fate: str, after: int) -> None:
        """``after`` requests are left alone."""
        self.engine = engine
        self.fate = fate
        self.left = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def generate(self, request: Decode, on_tokens: OnTokens | None = None) -> Decoded:
        """Decode; or send an id that no vocabulary has, or KV that was released."""
        if self.fate in ("refused", "released") and request.held:
            self.left -= 1
            if self.left == 0 and self.fate == "refused":
                request = replace(request, ids=[*request.ids[:-1], 1 << 30])
            elif self.left == 0:
                gone = request.held[0][:]
                gone.release()
                request = replace(request, held=(gone, *request.held[1:]))
        return await self.engine.generate(request, on_tokens)


class State(NamedTuple):
    """What is held and used at one moment.

    Attributes:
        free: whether all KV blocks are; ``pins``: that somebody counts on.
        own, below: resident bytes of this process, and of vLLM's.
        preempted: requests, by vLLM; ``repeated``: those sent again because a pin was lost.
    """

    free: bool
    pins: int
    own: int
    below: int
    preempted: int
    repeated: int


@dataclass
class Soak:
    """Everything that is counted.

    Attributes:
        ends: traces, by fate and end.
        failures: threads, by why they failed.
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

    async def many(self, numbers: Iterator[int], at_once: int, advance: Any) -> None:
        """Traces with these numbers, some at a time."""

        async def worker() -> None:
            for number in numbers:
                await self.one(number)
                advance()

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())

    async def one(self, number: int) -> None:
        """One trace, as its number has it."""
        dice = random.Random(f"{self.seed}/{number}")
        fate = dice.choices(list(FATES), list(FATES.values()))[0]
        soon = EARLY_S * dice.random() ** 2
        limits = Limits(
            depth=dice.randint(1, 4), children=dice.randint(2, 8), forks=dice.randint(1, 12),
            threads=dice.choice((1, 4, 64)), tokens=dice.randint(50, 1500), tokens_per_thread=dice.randint(20, 150),
            deadline_s=0.01 + soon if fate == "deadline" else None,
        )  # fmt: skip
        clean = dice.random() < 0.7  # hardly a malformed block, so more forks
        sampling = SamplingParams(temperature=1.0, top_k=8 if clean else 0, seed=number)
        engine: Any = Fated(self.engine, fate, dice.randint(1, 4))
        run = Run(engine, bind(dice.choice(DIALECTS), engine.tokenizer), sampling, limits)
        task = asyncio.create_task(
            run.trace("", engine.tokenizer.encode("".join(dice.choices("abxys", k=dice.randint(0, 80))) + "ab"))
        )
        if fate in ("cancelled", "reset"):
            await asyncio.wait([task], timeout=soon)
        if fate == "cancelled":
            task.cancel()
        if fate == "reset":
            await self.engine.llm.reset_prefix_cache(reset_connector=True)
        await asyncio.wait([task], timeout=HUNG_S)
        self.count(number, fate, task)

    def count(self, number: int, fate: str, task: "asyncio.Task[Trace]") -> None:
        """Note how a trace ended."""
        if not task.done():
            task.cancel()
            self.ends[fate, "hung"] += 1
        elif task.cancelled():
            self.ends[fate, "cancelled"] += 1
        elif error := task.exception():
            self.ends[fate, "raised"] += 1
            self.failures.update(map(why, leaves(error)))
        else:
            trace = task.result()
            self.ends[fate, trace.status] += 1
            self.failures.update(why(thread.why) for thread in trace.threads if thread.status == "failed")
            self.forks += trace.ledger.forks
            self.nested += any(thread.label.count(".") > 1 for thread in trace.threads)
            if number % self.every == 0:
                self.kept.append(trace)

    async def state(self) -> State:
        """What is held and used when nothing runs."""
        gc.collect()  # what a cancelled task held goes with it
        await asyncio.sleep(0.1)
        free, own = await self.engine.kv_is_free(), psutil.Process()
        below = sum(process.memory_info().rss for process in own.children(recursive=True))
        joins = self.engine.joins
        assert joins is not None
        return State(free, len(joins.pins), own.memory_info().rss, below, preemptions(), joins.repeated)

    def wrong(self, first: State, warm: State, last: State) -> Iterator[str]:
        """Everything that should not be."""
        if not last.free or last.pins != first.pins:
            yield f"KV is held in the end: all blocks free {last.free}, pins {last.pins}"
        for name, before, after in (("this process", warm.own, last.own), ("vLLM's processes", warm.below, last.below)):
            if after > GROWTH * before:
                yield f"memory of {name} grew by {after / before - 1:.1%} after the first tenth"
        for (fate, end), count in self.ends.items():
            if (
                end == "hung"
                or (end == "raised" and fate != "released")
                or (end == "cancelled" and fate not in STOPPED)
            ):
                yield f"{count} traces with the fate {fate!r} ended {end}"
        for reason, count in self.failures.items():
            if not any(known in reason for known in KNOWN):
                yield f"{count} threads failed: {reason}"


def leaves(error: BaseException) -> Iterator[str]:
    """What the errors in a group of them say."""
    for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from leaves(inner)
    if not isinstance(error, BaseExceptionGroup):
        yield f"{type(error).__name__}: {error}"


def why(text: str) -> str:
    """The same for every thread that failed for one reason."""
    return re.sub(r"'[^']*/[^']*'|\d+", "_", text)


def preemptions() -> int:
    """That vLLM counted."""
    from vllm.v1.metrics.reader import get_metrics_snapshot

    return sum(int(metric.value) for metric in get_metrics_snapshot() if metric.name == "vllm:num_preemptions")


def inexact(folder: str, traces: list[Trace]) -> tuple[float, int]:
    """The largest difference from the reference in nats, and how many sampled tokens that is out of."""
    reference = load_reference(folder)
    compared = [compare(reference, trace) for trace in traces]
    return max(one.largest for one in compared), sum(len(one.ids) for one in compared)


def soak(
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
        engine.memory.blocks *= 2
        soaking = Soak(engine, seed, every)
        states = [runner.run(soaking.state())]
        columns = *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("traces", total=traces)
            for numbers in (range(traces // 10), range(traces // 10, traces)):
                runner.run(soaking.many(iter(numbers), at_once, lambda: progress.advance(bar)))
                states.append(runner.run(soaking.state()))
        runner.run(engine.close())
        largest, sampled = inexact(folder, soaking.kept)
    report(console, soaking, states)
    console.print(f"{len(soaking.kept)} traces beside transformers: {largest:.1e} nats at most, {sampled:,} tokens")
    wrong = [*soaking.wrong(*states), *[f"inexact by {largest:.1e} nats"] * (not largest < BOUND)]
    for line in wrong:
        console.print(f"wrong: {line}", markup=False)
    raise typer.Exit(bool(wrong))


def report(console: Console, soaking: Soak, states: list[State]) -> None:
    """Print what was counted."""
    table = Table("", "KV blocks free", "pins", "MiB here", "MiB in vLLM's processes", "preempted", "repeated")
    for when, state in zip(("start", "after a tenth", "end"), states, strict=True):
        table.add_row(
            when, "all" if state.free else "not all", str(state.pins), f"{state.own / 2**20:,.0f}",
            f"{state.below / 2**20:,.0f}", f"{state.preempted:,}", f"{state.repeated:,}",
        )  # fmt: skip
    console.print(table)
    table = Table("fate", *ENDS)
    for fate in FATES:
        table.add_row(fate, *(f"{soaking.ends[fate, end]:,}" for end in ENDS))
    console.print(table)
    console.print(f"forks: {soaking.forks:,}; traces with children of children that ended: {soaking.nested:,}")
    for reason, count in soaking.failures.most_common():
        console.print(f"{count:,} x {reason}", markup=False)


if __name__ == "__main__":
    typer.run(soak)
