"""What the controller costs and what parallel children gain, as ratios from one run.

    python -m evals.bench

Overhead: the traces of a run are replayed as bare vLLM requests with the same dependencies (children after their
parent, a parent's next request after its children), without parsing, events or a ledger. The two are run in turn, and
the ratio of every pair is reported, because machines drift.
"""

import asyncio
import resource
import statistics
import subprocess
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from parallel_reason import Limits, ParallelLLM, Trace
from parallel_reason.countdown import held_out
from parallel_reason.trace import Thread

REQUESTS = iter(range(1 << 62))


async def replay(llm: ParallelLLM, traces: list[Trace]) -> None:
    """Send the requests of recorded traces straight to vLLM."""
    async with asyncio.TaskGroup() as group:
        for trace in traces:
            group.create_task(_replay_thread(llm, trace.root, []))


async def _replay_thread(llm: ParallelLLM, thread: Thread, seen: list[int]) -> None:
    context = list(seen)
    forks = {fork.at: fork for fork in thread.forks}
    for place, span in enumerate(thread.spans):
        if place in forks:
            async with asyncio.TaskGroup() as group:
                for child in forks[place].children:
                    group.create_task(_replay_thread(llm, child, context))
        if span.origin == "sampled":
            await _request(llm.engine, context, len(span.ids))
        context = context + span.ids


async def _request(engine: Any, context: list[int], tokens: int) -> None:
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    sampling = SamplingParams(
        temperature=0.0, max_tokens=tokens, ignore_eos=True, logprobs=0, flat_logprobs=True, detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )  # fmt: skip
    async for _ in engine.llm.generate(TokensPrompt(prompt_token_ids=context), sampling, f"bench/{next(REQUESTS)}"):
        pass


def timed(llm: ParallelLLM, prompts: list[str], limits: Limits) -> tuple[float, list[Trace]]:
    """Wall-clock seconds of a run that finds an empty prefix cache, and its traces."""
    assert llm.run(llm.engine.kv_is_free())
    begun = time.perf_counter()
    traces = llm.generate(prompts, limits=limits)
    return time.perf_counter() - begun, traces


def overhead(llm: ParallelLLM, prompts: list[str], pairs: int) -> list[float]:
    """Controller seconds over bare seconds, once a pair; a first pair warms up and is left out."""
    _, traces = timed(llm, prompts, Limits())

    def bare() -> float:
        assert llm.run(llm.engine.kv_is_free())
        begun = time.perf_counter()
        llm.run(replay(llm, traces))
        return time.perf_counter() - begun

    def controlled() -> float:
        return timed(llm, prompts, Limits())[0]

    ratios = []
    for pair in range(pairs + 1):
        taken = {way: way() for way in (bare, controlled)[:: (-1) ** pair]}
        ratios.append(taken[controlled] / taken[bare])
    return ratios[1:]


def bench(
    pairs: Annotated[int, typer.Option(help="Runs of each ratio.")] = 5,
    most: Annotated[int, typer.Option(help="Traces at once, at most.")] = 64,
) -> None:
    """Print every figure of the README's table."""
    console = Console(highlight=False)
    prompts = [str(problem) for problem in held_out(most)]
    begun = time.perf_counter()
    with ParallelLLM() as llm:
        started = time.perf_counter() - begun
        llm.generate(prompts[:4])  # warm
        ratios = overhead(llm, prompts, 3 * pairs)  # a small difference of two noisy times
        console.print(f"controller over bare requests, {most} traces: {_spread(ratios)}")
        table = Table("traces at once", "one after another / parallel", "token acceleration", "seconds, parallel")
        for size in [s for s in (1, 8, 64) if s <= most]:
            gains, walls, acceleration = [], [], 0.0
            for _ in range(pairs):
                parallel, traces = timed(llm, prompts[:size], Limits())
                serial, _ = timed(llm, prompts[:size], Limits(threads=1))
                gains.append(serial / parallel)
                walls.append(parallel)
                counts = [trace.ledger for trace in traces]
                acceleration = sum(c.sampled_tokens for c in counts) / sum(c.critical_path_tokens for c in counts)
            table.add_row(str(size), _spread(gains), f"{acceleration:.2f}", f"{statistics.median(walls):.2f}")
        console.print(table)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"peak memory: {own:.2f} GiB in this process, {children:.2f} GiB in the largest of vLLM's")
    console.print(f"engine start: {started:.1f} s")
    console.print(f"import parallel_reason: {_seconds('import parallel_reason'):.3f} s")
    console.print(f"process start to first token: {_first_token():.1f} s")


def _first_token() -> float:
    code = """
import time, parallel_reason
with parallel_reason.ParallelLLM() as llm:
    trace = llm.generate("22,26,31,53=27")
    print(time.time() - trace.ledger.wall_s + trace.ledger.first_token_s)
"""
    begun = time.time()
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout) - begun


def _seconds(code: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - begun


def _spread(values: list[float]) -> str:
    return f"median {statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}], n={len(values)}"


if __name__ == "__main__":
    typer.run(bench)
