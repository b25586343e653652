"""What the parts around an engine cost, and the torch engine beside transformers, as ratios from one run.

    python -m benchmarks.engines

- dialects: microseconds of a dialect's ``step`` and ``join`` for each sampled token, over well-formed text.
- engines: tokens a second of a fork of 8 on a 500-token prefix, torch beside transformers' ``generate`` on that batch,
  and vLLM.
- memory: KV bytes of 32 children on a 2,000-token prefix, over those of every token once, and over 33 sequences.
- layout: a trace of 32,000 tokens with 200 threads.
- joins: the first token after 8 children of 128 tokens, grafted and prefilled again.
"""

import asyncio
import statistics
import time
import tracemalloc
from functools import partial
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from transformers import AutoModelForCausalLM

from benchmarks.dialect_cost import seconds_a_token
from benchmarks.models import FIRST_ID, Size, random_ids, random_model
from benchmarks.report import Report, alternate, median_range, median_range_ms, ratio
from benchmarks.requests import ask, keep
from parallel_reason import Fork, Span, Thread, Trace, layout
from parallel_reason.engines import start
from parallel_reason.engines.base import Engine, KVHandle, RequestOutput
from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.trace.masks import flex

PREFIX, CHILDREN, NEW = 500, 8, 128


async def fork(engine: Engine, ids: list[int]) -> float:
    """Seconds of prefilling ``ids`` once and decoding `CHILDREN` threads of `NEW` tokens from it."""
    assert await engine.kv_is_free()
    graft = engine.capabilities.graft
    started = time.perf_counter()
    parent = await ask(engine, ids, 0 if graft else 1, keep_kv=graft)
    held = (parent.kv,) if parent.kv else ()
    await asyncio.gather(*(ask(engine, [*ids, FIRST_ID + k], NEW, held=held) for k in range(CHILDREN)))
    seconds = time.perf_counter() - started
    for kv in held:
        kv.release()
    return seconds


async def plain(model: Any, ids: list[int]) -> float:
    """Seconds of transformers' ``generate`` for the same tokens, as a batch."""
    batch = torch.tensor([[*ids, FIRST_ID + k] for k in range(CHILDREN)])
    started = time.perf_counter()
    with torch.inference_mode():
        model.generate(batch, attention_mask=torch.ones_like(batch), max_new_tokens=NEW, do_sample=False)
    return time.perf_counter() - started


async def children_of(
    engine: Engine, parent: KVHandle, ids: list[int], count: int, new: int
) -> list[tuple[KVHandle, RequestOutput]]:
    """Children decoded at once from a parent's KV, and theirs."""
    requests = (keep(engine, [*ids, FIRST_ID + k], new, held=(parent,)) for k in range(count))
    return await asyncio.gather(*requests)


async def kv_bytes(engine: TorchEngine, count: int, prefix: int, new: int) -> tuple[float, float]:
    """KV bytes of a fork over those of every token once, and over those of separate sequences."""
    ids = random_ids(prefix, 1)
    parent, _ = await keep(engine, ids)
    children = await children_of(engine, parent, ids, count, new)
    held, own = engine.kv_bytes(), 1 + new
    token = held // (prefix + count * own)
    for kv in (parent, *(kv for kv, _ in children)):
        kv.release()
    return held / (token * (prefix + count * own)), held / (token * (prefix + count * (prefix + own)))


async def joins(engine: Engine) -> tuple[float, float]:
    """Seconds from the last child's end to the first token after the join: grafted, and prefilled again."""
    ids = random_ids(PREFIX, 2)
    parent, _ = await keep(engine, ids)
    children = await children_of(engine, parent, ids, CHILDREN, NEW)
    parts = [kv[PREFIX:] for kv, _ in children]
    below = [token for k, (_, output) in enumerate(children) for token in (FIRST_ID + k, *output.ids)]
    joined = [*ids, *below, FIRST_ID - 1]
    started = time.perf_counter()
    await ask(engine, joined, 1, held=(parent, *parts))
    grafted = time.perf_counter() - started
    started = time.perf_counter()
    await ask(engine, joined, 1, held=(parent,))
    again = time.perf_counter() - started
    for kv in (parent, *parts, *(kv for kv, _ in children)):
        kv.release()
    return grafted, again


def wide_trace(children: int, tokens: int) -> Trace:
    """A graft of that many children, and tokens in all."""
    prefix = tokens // 16
    each = (tokens - prefix) // children
    spans = [Span(ids=random_ids(prefix, 0), origin="prompt"), Span(ids=random_ids(64, 1), origin="injected")]
    fork = Fork(at=1, join_rule="graft", children=[*range(1, children + 1)])
    threads = [Thread(label="0", spans=spans, forks=[fork], status="finished")]
    for k in range(children):
        own = [Span(ids=random_ids(each, k), origin="sampled")]
        threads.append(Thread(label=f"0.{k}", parent=0, spans=own, status="finished"))
    return Trace(dialect="multiverse", model="none", prompt="", threads=threads)


async def engine_rows(pairs: int) -> tuple[list[list[str]], float]:
    """Figures of engines, and seconds that the torch engine takes for a token."""
    folder, ids = random_model(Size(6, 256, 4, 2, 64, 768)), random_ids(PREFIX, 3)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    engine = await TorchEngine.start(folder, dtype="float32", device="cpu")
    taken = await alternate({"torch": partial(fork, engine, ids), "generate": partial(plain, model, ids)}, pairs)
    once, separate = await kv_bytes(engine, 32, 2000, 16)
    await joins(engine)  # warm
    both = [await joins(engine) for _ in range(pairs)]
    await engine.close()
    vllm = await start("vllm", folder, context=4096)
    in_vllm = await alternate({"vllm": partial(fork, vllm, ids)}, pairs)
    await vllm.close()
    speeds = {way: [CHILDREN * NEW / s for s in seconds] for way, seconds in {**taken, **in_vllm}.items()}
    rows = [
        ["torch engine, tokens/s", median_range(speeds["torch"])],
        ["transformers.generate, tokens/s", median_range(speeds["generate"])],
        ["torch engine over generate", ratio(speeds["torch"], speeds["generate"])],
        ["KV bytes, 32 children on 2,000 tokens, over every token once", f"{once:.3f}"],
        ["the same, over 33 sequences", f"{separate:.3f}"],
        ["graft to first token, ms", median_range_ms([grafted for grafted, _ in both])],
        ["prefill again to first token, ms", median_range_ms([again for _, again in both])],
        ["vLLM, tokens/s", median_range(speeds["vllm"])],
    ]
    return rows, statistics.median(taken["torch"]) / (CHILDREN * NEW)


def layout_rows(pairs: int) -> list[list[str]]:
    """Figures of the layout of a large trace."""
    trace = wide_trace(200, 32_000)
    times = []
    for _ in range(pairs):
        started = time.perf_counter()
        row = layout(trace)
        times.append(time.perf_counter() - started)
    tracemalloc.start()
    layout(trace)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    started = time.perf_counter()
    flex(row)
    blocks = time.perf_counter() - started
    return [
        ["layout of 32k tokens, 200 threads, ms", median_range_ms(times)],
        ["the same, peak MiB", f"{peak:.1f}"],
        ["its FlexAttention block mask, ms", f"{1000 * blocks:.0f}"],
    ]


def main(pairs: Annotated[int, typer.Option(min=1, help="Runs of each ratio.")] = 5) -> None:
    """Print every figure as a table."""
    rows, a_token = asyncio.run(engine_rows(pairs))
    rows += layout_rows(pairs)
    for name, seconds in seconds_a_token().items():
        figure = f"{1e6 * seconds:.2f} ({seconds / a_token:.2%})"
        rows.append([f"{name}: dialect, us a token (part of the engine's)", figure])
    Report(Console(highlight=False)).table(f"n={pairs}", ["what", "median [least, most]"], rows)


if __name__ == "__main__":
    typer.run(main)
