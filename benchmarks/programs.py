"""What a program costs over the same requests sent straight to the engine, and what a probe computes.

    python -m benchmarks.programs

Overhead: 64 programs at once sample, fork, sample in every child, join and sample again; the very requests, each after
those that it needs, are sent to the engine without threads, traces or ledger. The two run in turn, and the ratio of
every pair is reported, because machines drift. Every run finds an empty prefix cache.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.report import Report, median_range
from benchmarks.requests import ask
from parallel_reason import Limits, ParallelLLM, ProgramThread, SamplingParams
from parallel_reason.engines.base import Engine
from parallel_reason.tasks.countdown import held_out

CHILDREN, TOKENS = 4, 24
GREEDY = SamplingParams(ignore_eos=True)


async def forked(t: ProgramThread) -> None:
    """Sample, fork, sample in every child, join, sample."""
    await t.sample(TOKENS)
    children = t.fork([[number] for number in range(10, 10 + CHILDREN)])
    await children.sample(TOKENS)
    t.join(children, text=[9])
    await t.sample(TOKENS)


async def straight(engine: Engine, prompt: list[int]) -> None:
    """The requests of `forked`."""

    async def more(ids: list[int]) -> list[int]:
        return ids + (await ask(engine, ids, TOKENS, sampling=GREEDY)).ids

    root = await more(prompt)
    await asyncio.gather(*(more([*root, number]) for number in range(10, 10 + CHILDREN)))
    await more([*root, 9])


async def timed(llm: ParallelLLM, work: Callable[[], Awaitable[Any]]) -> float:
    """Seconds of some work that finds an empty prefix cache."""
    assert await llm.session.kv_is_free()
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def overhead(llm: ParallelLLM, at_once: int, pairs: int) -> list[float]:
    """Seconds of programs over seconds of their bare requests, once a pair; a first pair warms up."""
    prompts = [str(problem) for problem in held_out(at_once)]
    ids = [llm.tokenizer.encode(prompt) for prompt in prompts]

    async def programs() -> None:
        await llm.session.run_program(forked, prompts, GREEDY)

    async def requests() -> None:
        await asyncio.gather(*(straight(llm.engine, one) for one in ids))

    ratios = []
    for pair in range(pairs + 1):
        both = {way: await timed(llm, way) for way in (programs, requests)[:: (-1) ** pair]}
        ratios.append(both[programs] / both[requests])
    return ratios[1:]


async def probes(llm: ParallelLLM, every: int, count: int) -> list[int]:
    """Tokens that probes computed of what the thread that they forked from had sampled, while that went on."""
    seen: list[ProgramThread] = []

    async def program(t: ProgramThread) -> None:
        async with aclosing(t.stream(every * count + 1)) as tokens:
            async for _ in tokens:
                if t.sampled_tokens % every == 0:
                    seen.append(t.probe([9]))
                    await seen[-1].sample(2)

    [trace] = await llm.session.run_program(program, [str(held_out(1)[0])], GREEDY, Limits(context=500))
    threads = [trace.thread(probe.label) for probe in seen]
    return [(thread.prefilled_tokens or 0) - (thread.cached_tokens or 0) - 1 for thread in threads]


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each ratio.")] = 9,
    at_once: Annotated[int, typer.Option(min=1, help="Programs at once.")] = 64,
    markdown: Annotated[bool, typer.Option(help="Print the table as Markdown.")] = False,
) -> None:
    """Print the overhead of programs and the cost of probes."""
    with ParallelLLM(dialect="none") as llm:
        ratios = llm.run_coroutine(overhead(llm, at_once, pairs))
        computed = llm.run_coroutine(probes(llm, 17, 20))
        block = llm.engine.admission.block_size
    rows = [
        [f"programs over bare requests, {at_once} at once, n={len(ratios)}", median_range(ratios)],
        [f"tokens a probe computes besides its own, n={len(computed)}", median_range([float(c) for c in computed])],
        ["tokens of a KV block", str(block)],
    ]
    Report(Console(highlight=False), markdown).table("Programs on vLLM, the embedded model", ["", ""], rows)


if __name__ == "__main__":
    typer.run(main)
