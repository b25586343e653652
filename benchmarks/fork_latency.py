"""From the end of a long parent to the first token of its children: on held KV, on the prefix cache, and on neither."""

import asyncio
import statistics
import time
from functools import partial

from benchmarks.models import FIRST_ID, RandomModel, random_ids
from benchmarks.report import Report, alternate, median_range_ms, ratio
from benchmarks.requests import ask, numbers
from parallel_reason.engines import start
from parallel_reason.engines.base import Engine

PREFIX = 2011  # its last block is not full
CHILDREN = (8, 32)


async def first_tokens(engine: Engine, children: int) -> list[float]:
    """Seconds from a fork to the first token of each child, the soonest first; the prefix is fresh."""
    ids, graft = random_ids(PREFIX, next(numbers)), engine.capabilities.graft
    parent = await ask(engine, ids, 0 if graft else 1, keep_kv=graft)
    held = (parent.kv,) if parent.kv else ()
    started = time.perf_counter()

    async def child(number: int) -> float:
        await ask(engine, [*ids, FIRST_ID + number], 1, held=held)
        return time.perf_counter() - started

    seconds = await asyncio.gather(*map(child, range(children)))
    for kv in held:
        kv.release()
    assert await engine.kv_is_free()
    return sorted(seconds)


async def compare_forks(models: list[RandomModel], report: Report, runs: int) -> None:
    """Every size of model and number of children, on three engines that live side by side."""
    rows = []
    for model in models:
        launch = partial(start, "vllm", model.folder, context=4096, **model.options)
        engines = {
            "held KV": await launch(graft=True),
            "prefix cache": await launch(graft=False),
            "no cache": await launch(graft=False, enable_prefix_caching=False),
        }
        for children in CHILDREN:
            ways = {way: partial(first_tokens, engine, children) for way, engine in engines.items()}
            taken = await alternate(ways, runs)
            held = [run[-1] for run in taken["held KV"]]
            for way, seconds in taken.items():
                last = [run[-1] for run in seconds]
                times = [run[0] for run in seconds], [statistics.median(run) for run in seconds], last
                rows.append(
                    [f"{model.name}, {children} children, {way}", *map(median_range_ms, times), ratio(held, last)]
                )
        for engine in engines.values():
            await engine.close()
    report.table(
        f"fork: after {PREFIX:,} tokens, ms to the first token of children, n={runs}",
        ["", "first child", "median child", "last child", "held KV / it, last child"],
        rows,
    )
