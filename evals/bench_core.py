"""What the parts around an engine cost, and the torch engine beside transformers, as ratios from one run.

    python -m evals.bench_core

- parser: microseconds of a dialect's ``step`` and ``join`` for each sampled token, over well-formed text.
- engines: tokens a second of a fork of 8 on a 500-token prefix, torch beside transformers' ``generate`` on that batch,
  and vLLM.
- memory: KV bytes of 32 children on a 2,000-token prefix, over what an ideal sharing holds, and over 33 sequences.
- layout: a trace of 32,000 tokens with 200 threads.
- joins: the first token after 8 children of 128 tokens, grafted and prefilled again.
"""

import asyncio
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from evals.parser import seconds_a_token
from evals.rig import GREEDY, NEVER, model_folder, spread, words
from parallel_reason import Trace
from parallel_reason.engines.base import Decode, Engine
from parallel_reason.engines.torch import TorchEngine
from parallel_reason.engines.vllm import VllmEngine
from parallel_reason.layout import layout
from parallel_reason.masks import flex
from parallel_reason.trace import Fork, Span, Thread

PREFIX, CHILDREN, NEW = 500, 8, 128


async def fork(engine: Engine, ids: list[int], children: int, new: int) -> float:
    """Seconds of prefilling ``ids`` once and decoding ``children`` threads of ``new`` tokens from it."""
    assert await engine.kv_is_free()
    keep = engine.capabilities.graft
    begun = time.perf_counter()
    parent = await engine.generate(Decode("parent", ids, 0 if keep else 1, NEVER, GREEDY, keep=keep))
    held = (parent.kv,) if parent.kv else ()
    requests = [Decode(f"child {k}", [*ids, 400 + k], new, NEVER, GREEDY, held=held) for k in range(children)]
    await asyncio.gather(*map(engine.generate, requests))
    seconds = time.perf_counter() - begun
    for kv in held:
        kv.release()
    return seconds


def plain(model: Any, ids: list[int], children: int, new: int) -> float:
    """Seconds of transformers' ``generate`` for the same tokens, as a batch."""
    batch = torch.tensor([[*ids, 400 + k] for k in range(children)])
    begun = time.perf_counter()
    with torch.inference_mode():
        model.generate(batch, attention_mask=torch.ones_like(batch), max_new_tokens=new, do_sample=False)
    return time.perf_counter() - begun


async def kv_bytes(engine: TorchEngine, children: int, prefix: int, new: int) -> tuple[float, float]:
    """KV bytes of a fork over the ideal, every token once, and over separate sequences."""
    ids = words(prefix, 1)
    parent = await engine.generate(Decode("parent", ids, 0, NEVER, GREEDY, keep=True))
    assert parent.kv is not None
    requests = [
        Decode(f"child {k}", [*ids, 400 + k], new, NEVER, GREEDY, held=(parent.kv,), keep=True) for k in range(children)
    ]
    done = await asyncio.gather(*map(engine.generate, requests))
    held, own = engine.kv_bytes(), 1 + new
    token = held // (prefix + children * own)
    parent.kv.release()
    for child in done:
        assert child.kv is not None
        child.kv.release()
    return held / (token * (prefix + children * own)), held / (token * (prefix + children * (prefix + own)))


async def joins(engine: TorchEngine, children: int, new: int) -> tuple[float, float]:
    """Seconds from the last child's end to the first token after the join: grafted, and prefilled again."""
    ids = words(PREFIX, 2)
    parent = await engine.generate(Decode("parent", ids, 0, NEVER, GREEDY, keep=True))
    assert parent.kv is not None
    held = (parent.kv,)
    requests = [
        Decode(f"child {k}", [*ids, 400 + k], new, NEVER, GREEDY, held=held, keep=True) for k in range(children)
    ]
    done = await asyncio.gather(*map(engine.generate, requests))
    parts = [child.kv[PREFIX:] for child in done if child.kv is not None]
    joined = [*ids, *(token for k, child in enumerate(done) for token in (400 + k, *child.ids)), 399]
    begun = time.perf_counter()
    await engine.generate(Decode("graft", joined, 1, NEVER, GREEDY, held=(*held, *parts)))
    grafted = time.perf_counter() - begun
    begun = time.perf_counter()
    await engine.generate(Decode("again", joined, 1, NEVER, GREEDY, held=held))
    again = time.perf_counter() - begun
    for kv in (*held, *parts, *(child.kv for child in done)):
        if kv is not None:
            kv.release()
    return grafted, again


def wide_trace(threads: int, tokens: int) -> Trace:
    """A graft of that many threads, and tokens in all."""
    prefix = tokens // 16
    each = (tokens - prefix) // threads
    children = [
        Thread(label=f"0.{k}", parent="0", spans=[Span(ids=words(each, k), origin="sampled")]) for k in range(threads)
    ]
    spans = [Span(ids=words(prefix, 0), origin="prompt"), Span(ids=words(64, 1), origin="injected")]
    root = Thread(label="0", spans=spans, forks=[Fork(at=1, join="graft", children=children)])
    return Trace(dialect="multiverse", model="none", prompt="", root=root)


def alternately(first: Callable[[], float], second: Callable[[], float], pairs: int) -> tuple[list[float], list[float]]:
    """Both, in turn, after one run of each that does not count."""
    first(), second()
    taken = [(first(), second()) for _ in range(pairs)]
    return [a for a, _ in taken], [b for _, b in taken]


def bench(pairs: Annotated[int, typer.Option(help="Runs of each ratio.")] = 5) -> None:
    """Print every figure as a table."""
    from transformers import AutoModelForCausalLM

    folder = model_folder(layers=6, width=256)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    table = Table("what", "median [least, most], n")
    ids = words(PREFIX, 3)
    with asyncio.Runner() as runner:
        engine = runner.run(TorchEngine.start(folder, dtype="float32", device="cpu"))
        ours, theirs = alternately(
            lambda: runner.run(fork(engine, ids, CHILDREN, NEW)), lambda: plain(model, ids, CHILDREN, NEW), pairs
        )
        table.add_row("torch engine, tokens/s", spread([CHILDREN * NEW / s for s in ours]))
        table.add_row("transformers.generate, tokens/s", spread([CHILDREN * NEW / s for s in theirs]))
        table.add_row("torch engine over generate", spread([b / a for a, b in zip(ours, theirs, strict=True)]))
        ideal, separate = runner.run(kv_bytes(engine, 32, 2000, 16))
        table.add_row("KV bytes, 32 children on 2,000 tokens, over the ideal", f"{ideal:.3f}")
        table.add_row("the same, over 33 sequences", f"{separate:.3f}")
        runner.run(joins(engine, CHILDREN, NEW))
        both = [runner.run(joins(engine, CHILDREN, NEW)) for _ in range(pairs)]
        table.add_row("graft to first token, ms", spread([1000 * a for a, _ in both]))
        table.add_row("prefill again to first token, ms", spread([1000 * b for _, b in both]))
        runner.run(engine.close())
        vllm = runner.run(VllmEngine.start(folder, context=4096))
        runner.run(fork(vllm, ids, CHILDREN, NEW))
        speeds = [CHILDREN * NEW / runner.run(fork(vllm, ids, CHILDREN, NEW)) for _ in range(pairs)]
        table.add_row("vLLM, tokens/s", spread(speeds))
        runner.run(vllm.close())
    trace = wide_trace(200, 32_000)
    times = []
    for _ in range(pairs):
        begun = time.perf_counter()
        row = layout(trace)
        times.append(1000 * (time.perf_counter() - begun))
    tracemalloc.start()
    layout(trace)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    begun = time.perf_counter()
    flex(row)
    blocks = 1000 * (time.perf_counter() - begun)
    table.add_row("layout of 32k tokens, 200 threads, ms", spread(times))
    table.add_row("the same, peak MiB", f"{peak:.1f}")
    table.add_row("its FlexAttention block mask, ms", f"{blocks:.0f}")
    a_token = statistics.median(ours) / (CHILDREN * NEW)
    for name, seconds in seconds_a_token().items():
        table.add_row(
            f"{name}: parser, us a token (share of the engine's)", f"{1e6 * seconds:.2f} ({seconds / a_token:.2%})"
        )
    Console(highlight=False).print(table)


if __name__ == "__main__":
    typer.run(bench)
