"""Plain requests on an engine that was started to graft, over one that was not.

An engine is faster or slower than the next one for as long as it lives, by more than the difference that is measured:
what counts is how many were started. Of each two that live side by side, now one and now the other is started first.
"""

import asyncio
import statistics
import time
from functools import partial

from benchmarks.models import RandomModel, random_ids
from benchmarks.report import Report, alternate, median_range, ratio
from benchmarks.requests import ask
from parallel_reason.engines import start
from parallel_reason.engines.base import Engine
from parallel_reason.evaluation.intervals import of_median

REQUESTS, PROMPT, NEW = 64, 64, 256  # at once; tokens of their prompts; tokens that each samples
STARTS, TURNS = 4, 3  # starts of both engines for each run that was asked for, and runs on each
REST_S = 1.5  # vLLM's worker keeps a core busy for a second after its last request


async def tokens_a_second(engine: Engine) -> float:
    """Of plain requests at once."""
    assert await engine.kv_is_free()
    await asyncio.sleep(REST_S)
    started = time.perf_counter()
    outputs = await asyncio.gather(*(ask(engine, random_ids(PROMPT, seed), NEW) for seed in range(REQUESTS)))
    assert {len(output.ids) for output in outputs} == {NEW}
    return REQUESTS * NEW / (time.perf_counter() - started)


async def compare_idle(model: RandomModel, report: Report, runs: int) -> None:
    """Many starts of both engines."""
    ready, plain = [], []
    for number in range(STARTS * runs):
        order = (True, False) if number % 2 else (False, True)
        engines = {
            graft: await start("vllm", model.folder, graft=graft, context=1024, **model.options) for graft in order
        }
        ways = {str(graft): partial(tokens_a_second, engine) for graft, engine in engines.items()}
        taken = await alternate(ways, TURNS)
        ready.append(statistics.median(taken["True"]))
        plain.append(statistics.median(taken["False"]))
        for engine in engines.values():
            await engine.close()
    ratios = [one / other for one, other in zip(ready, plain, strict=True)]
    report.table(
        f"idle: {REQUESTS} plain requests of {PROMPT} + {NEW} tokens at once, {model.name}, tokens/s, n={len(ready)} "
        f"starts of both engines, medians of {TURNS} runs on each",
        ["started to graft", "not", "ratio", "95% interval of its median"],
        [
            [
                median_range(ready),
                median_range(plain),
                ratio(ready, plain),
                "{:.3f} to {:.3f}".format(*of_median(ratios)),
            ]
        ],
    )
