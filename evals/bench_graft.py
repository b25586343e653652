"""What grafts gain on vLLM, and what they cost where nobody grafts, as ratios from one run.

    python -m evals.bench_graft                                # every part
    python -m evals.bench_graft --only join --models 3M        # one of them
    python -m evals.bench_graft >> notes.md                    # piped, tables are Markdown

Real vLLM, float32, blocks of 32 tokens, random Qwen3 weights (seed 0), random ids, greedy. Ways are run in turn, and
a ratio is that of one turn; what is told is median [least, most].

- join: from the end of the last child to the first token after the join. To graft takes two steps: KV of each child's
  last token and of the newline after it, which nobody has computed yet, and the join's own request. Beside it the same
  number of tokens as plain text, prefilled after the parent's held KV; and relinearised, after the first child's.
  The children are random ids whose KV a prefill computed: it is the KV that decoding them would have left.
- fork: from the end of a parent of 2,011 tokens to the first token of its children.
- trace: traces at once, made by the controller, with forks and joins of Multiverse's shape, or the same number of
  tokens sampled by one thread. Where threads stop is told (`evals/script.py`).
- idle: plain requests on an engine that was started to graft, over one that was not.
"""

import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from evals.interval import of_median
from evals.rig import SIZES, SMALL, WORDS, Desk, ask, in_turn, middle, model_folder, ms, numbers, over, words
from evals.script import trace
from parallel_reason.engines.base import KV, Engine
from parallel_reason.engines.vllm import VllmEngine

PREFIX, LONG_PREFIX = 500, 2011  # the last block of neither is full
CASES = "2x128,2x512,8x128,8x512,32x128,32x512"
WINDOW = 20480
FORKS = (8, 32)
IDLE = (64, 64, 256)  # requests, tokens of their prompts, tokens that each samples
STARTS, TURNS = 4, 3  # of idle: starts of both engines for each of --pairs, and runs on each
REST_S = 1.5  # vLLM's worker keeps a core busy for a second after its last request
NEWLINE, GLUE = 392, [393, 392]  # after a child, and after the join


class Part(StrEnum):
    """What can be run alone."""

    join = "join"
    fork = "fork"
    trace = "trace"
    idle = "idle"


class Joined(NamedTuple):
    """Seconds from the children's end to the first token after their join, and context tokens computed.

    Attributes:
        graft: both steps; ``request``: the second alone.
        prefill: of the same number of tokens after the parent; ``relinearise``: after the first child.
        twice: context tokens that grafting computed though their KV was there.
        prefilled, relinearised: context tokens that these computed.
    """

    graft: float
    request: float
    prefill: float
    relinearise: float
    twice: int
    prefilled: int
    relinearised: int


async def computed(engine: Engine, ids: list[int], **options: Any) -> tuple[KV, int]:
    """KV of all of these ids, and how many of them were not there before."""
    done = await ask(engine, ids, 0, keep=True, **options)
    assert done.kv is not None
    assert len(done.kv) == len(ids)
    return done.kv, len(ids) - done.cached_tokens


async def joined(engine: VllmEngine, children: int, tokens: int) -> Joined:
    """Join children of fresh random ids, whose last two tokens have no KV yet, in each way."""
    seed = next(numbers)
    prefix = words(PREFIX, seed)
    told = [[400 + k, *words(tokens - 2, WORDS * seed + k), NEWLINE] for k in range(children)]
    parent, _ = await computed(engine, prefix)
    decoded = await asyncio.gather(*(computed(engine, [*prefix, *child[:-2]], held=(parent,)) for child in told))
    ran = [kv for kv, _ in decoded]
    below = [token for child in told for token in child]
    ids = [*prefix, *below, *GLUE]
    positions = [*range(PREFIX), *[*range(PREFIX, PREFIX + tokens)] * children]
    positions += range(PREFIX + tokens, PREFIX + tokens + len(GLUE))
    unlike = [*prefix, 399, *below[1:], *GLUE]  # the prefix cache does not have its first child

    times = [time.perf_counter()]
    closed = await asyncio.gather(
        *(computed(engine, [*prefix, *child], held=(kv,)) for child, kv in zip(told, ran, strict=True))
    )
    parts = [kv[PREFIX:] for kv, _ in closed]
    times.append(time.perf_counter())
    graft = await ask(engine, ids, 1, positions=positions, held=(parent, *parts))
    times.append(time.perf_counter())
    prefill = await ask(engine, unlike, 1, held=(parent,))
    times.append(time.perf_counter())
    relinearise = await ask(engine, ids, 1, held=(ran[0],))
    times.append(time.perf_counter())

    for kv in (parent, *ran, *(kv for kv, _ in closed), *parts):
        kv.release()
    assert await engine.kv_is_free()
    return Joined(
        graft=times[2] - times[0],
        request=times[2] - times[1],
        prefill=times[3] - times[2],
        relinearise=times[4] - times[3],
        twice=sum(new for _, new in closed) - 2 * children + len(ids) - len(GLUE) - graft.cached_tokens,
        prefilled=len(ids) - prefill.cached_tokens,
        relinearised=len(ids) - relinearise.cached_tokens,
    )


async def join(desk: Desk, sizes: list[str], cases: list[tuple[int, int]]) -> None:
    """Every size of model, number of children and length."""
    rows = []
    for size in sizes:
        engine = await desk.start(size, True, context=WINDOW, kv_cache_gib=2)
        await joined(engine, 8, 64)  # warm
        for children, tokens in cases:
            runs = [await joined(engine, children, tokens) for _ in range(desk.runs)]
            graft, request, prefill, relinearise, twice, *more = map(list, zip(*runs, strict=True))
            rows.append([
                f"{size}, {children} x {tokens}", ms(graft), ms(request), ms(prefill), ms(relinearise),
                over(graft, prefill), over(graft, relinearise), over(request, prefill),
                " / ".join(f"{max(counts):,}" for counts in (twice, *more)),
            ])  # fmt: skip
        await engine.close()
    desk.show(
        f"join: children x tokens after {PREFIX} tokens, ms to the first token, n={desk.runs}",
        [
            "", "graft", "of this, the join's request", "prefill", "relinearise", "graft / prefill",
            "graft / relinearise", "join's request / prefill",
            "context tokens computed: graft, beyond the glue / prefill / relinearise",
        ],
        rows,
    )  # fmt: skip


async def first_tokens(engine: VllmEngine, children: int) -> list[float]:
    """Seconds from a fork to the first token of each child, the soonest first; the prefix is fresh."""
    ids, graft = words(LONG_PREFIX, next(numbers)), engine.capabilities.graft
    parent = await ask(engine, ids, 0 if graft else 1, keep=graft)
    held = (parent.kv,) if parent.kv else ()
    begun = time.perf_counter()

    async def child(number: int) -> float:
        await ask(engine, [*ids, 400 + number], 1, held=held)
        return time.perf_counter() - begun

    seconds = await asyncio.gather(*map(child, range(children)))
    for kv in held:
        kv.release()
    assert await engine.kv_is_free()
    return sorted(seconds)


async def fork(desk: Desk, sizes: list[str]) -> None:
    """Every size of model and number of children, on three engines that live side by side."""
    rows = []
    for size in sizes:
        engines = {
            "held KV": await desk.start(size, True, context=4096),
            "prefix cache": await desk.start(size, False, context=4096),
            "no cache": await desk.start(size, False, context=4096, enable_prefix_caching=False),
        }
        for children in FORKS:
            ways = {way: partial(first_tokens, engine, children) for way, engine in engines.items()}
            taken = await in_turn(ways, desk.runs)
            held = [run[-1] for run in taken["held KV"]]
            for way, runs in taken.items():
                last = [run[-1] for run in runs]
                times = [run[0] for run in runs], [statistics.median(run) for run in runs], last
                rows.append([f"{size}, {children} children, {way}", *map(ms, times), over(held, last)])
        for engine in engines.values():
            await engine.close()
    desk.show(
        f"fork: after {LONG_PREFIX:,} tokens, ms to the first token of children, n={desk.runs}",
        ["", "first child", "median child", "last child", "held KV / it, last child"],
        rows,
    )


async def tokens_a_second(engine: VllmEngine) -> float:
    """Of plain requests at once."""
    requests, prompt, new = IDLE
    assert await engine.kv_is_free()
    await asyncio.sleep(REST_S)
    begun = time.perf_counter()
    done = await asyncio.gather(*(ask(engine, words(prompt, seed), new) for seed in range(requests)))
    assert {len(one.ids) for one in done} == {new}
    return requests * new / (time.perf_counter() - begun)


async def idle(desk: Desk) -> None:
    """Started to graft, over not.

    An engine is faster or slower than the next one for as long as it lives, by more than what is looked for: what
    counts is how many were started. Of each two that live side by side, now this one and now that is started first.
    """
    ready, plain = [], []
    for start in range(STARTS * desk.runs):
        order = (True, False) if start % 2 else (False, True)
        engines = {graft: await desk.start(SMALL, graft, context=1024) for graft in order}
        ways = {str(graft): partial(tokens_a_second, engine) for graft, engine in engines.items()}
        taken = await in_turn(ways, TURNS)
        ready.append(statistics.median(taken["True"]))
        plain.append(statistics.median(taken["False"]))
        for engine in engines.values():
            await engine.close()
    requests, prompt, new = IDLE
    ratios = [one / other for one, other in zip(ready, plain, strict=True)]
    desk.show(
        f"idle: {requests} plain requests of {prompt} + {new} tokens at once, {SMALL}, tokens/s, n={len(ready)} "
        f"starts of both engines, medians of {TURNS} runs on each",
        ["started to graft", "not", "ratio", "95% interval of its median"],
        [[middle(ready), middle(plain), over(ready, plain), "{:.3f} to {:.3f}".format(*of_median(ratios))]],
    )


def bench(
    only: Annotated[list[Part] | None, typer.Option(help="Run this part alone; may be given again.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each ratio; starts of idle are four times as many.")] = 5,
    models: Annotated[str, typer.Option(help=f"Of join and fork; trace and idle are always on {SMALL}.")] = "3M,80M",
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
    folders = {size: model_folder(*SIZES[size], window=WINDOW) for size in {*sizes, SMALL}}
    desk = Desk(folders, pairs, Console(highlight=False), markdown or not sys.stdout.isatty())
    parts: dict[Part, Callable[[], Awaitable[None]]] = {
        Part.join: lambda: join(desk, sizes, [_pair(case) for case in cases.split(",")]),
        Part.fork: lambda: fork(desk, sizes),
        Part.trace: lambda: trace(desk, traces, trace_pairs),
        Part.idle: lambda: idle(desk),
    }

    async def every() -> None:
        for part in only or Part:
            await parts[part]()

    asyncio.run(every())
    for folder in folders.values():
        shutil.rmtree(folder)


def _pair(case: str) -> tuple[int, int]:
    children, tokens = map(int, case.split("x"))
    return children, tokens


if __name__ == "__main__":
    typer.run(bench)
