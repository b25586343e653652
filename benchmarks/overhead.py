"""What the runtime costs and what parallel children gain, as ratios from one run.

    python -m benchmarks.overhead

Overhead: the traces of a run are sent again as bare vLLM requests with the same dependencies (children after their
parent, a parent's next request after its children), without dialect, events or ledger. The two are run in turn, and
the ratio of every pair is reported, because machines drift.
"""

import asyncio
import itertools
import resource
import statistics
import subprocess
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.report import median_range
from parallel_reason import Limits, ParallelLLM, Trace, aggregate
from parallel_reason.tasks.countdown import held_out

numbers = itertools.count()


async def send_again(llm: ParallelLLM, traces: list[Trace], at_once: int = 256) -> None:
    """Send the requests of recorded traces straight to vLLM, those of so many traces at once."""
    slots = asyncio.Semaphore(at_once)

    async def send(trace: Trace) -> None:
        async with slots:
            await _send_thread(llm, trace, 0, [])

    await asyncio.gather(*map(send, traces))


async def _send_thread(llm: ParallelLLM, trace: Trace, number: int, context: list[int]) -> None:
    """The requests of one thread, after a context, and those of its children.

    The embedded model's children see their parent's tokens, and a parent sees none of theirs.
    """
    thread = trace.threads[number]
    forks = {fork.at: fork for fork in thread.forks}
    for place, span in enumerate(thread.spans):
        if place in forks:
            children = forks[place].children
            await asyncio.gather(*(_send_thread(llm, trace, child, context) for child in children))
        if span.origin == "sampled":
            await _send(llm, context, len(span.ids), trace.sampling.temperature if trace.sampling else 0.0)
        context = context + span.ids


async def _send(llm: ParallelLLM, context: list[int], tokens: int, temperature: float) -> None:
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    sampling = SamplingParams(
        temperature=temperature, max_tokens=tokens, ignore_eos=True, logprobs=0, flat_logprobs=True, detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )  # fmt: skip
    engine: Any = llm.engine
    async for _ in engine.llm.generate(TokensPrompt(prompt_token_ids=context), sampling, f"bare {next(numbers)}"):
        pass


def timed(llm: ParallelLLM, prompts: list[str], limits: Limits) -> tuple[float, list[Trace]]:
    """Wall-clock seconds of a run that finds an empty prefix cache, and its traces."""
    assert llm.kv_is_free()
    started = time.perf_counter()
    traces = llm.generate(prompts, limits=limits)
    return time.perf_counter() - started, traces


def overhead(llm: ParallelLLM, prompts: list[str], pairs: int) -> list[float]:
    """Seconds of a run over seconds of its bare requests, once a pair; a first pair warms up and is left out."""
    _, traces = timed(llm, prompts, Limits())

    def bare() -> float:
        assert llm.kv_is_free()
        started = time.perf_counter()
        llm.run_coroutine(send_again(llm, traces))
        return time.perf_counter() - started

    def run() -> float:
        return timed(llm, prompts, Limits())[0]

    ratios = []
    for pair in range(pairs + 1):
        seconds = {way: way() for way in (bare, run)[:: (-1) ** pair]}
        ratios.append(seconds[run] / seconds[bare])
    return ratios[1:]


def gains(llm: ParallelLLM, prompts: list[str], pairs: int) -> list[str]:
    """A row: traces at once, children one after another over parallel, token acceleration, seconds."""
    taken = []
    for _ in range(pairs):
        parallel, traces = timed(llm, prompts, Limits())
        serial, _ = timed(llm, prompts, Limits(threads=1))
        taken.append((serial / parallel, parallel))
    acceleration = aggregate(trace.ledger for trace in traces).acceleration_of_sums
    seconds = statistics.median(parallel for _, parallel in taken)
    return [str(len(prompts)), median_range([gain for gain, _ in taken]), f"{acceleration:.2f}", f"{seconds:.2f}"]


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each ratio.")] = 5,
    most: Annotated[int, typer.Option(min=4, help="Traces at once, at most.")] = 64,
) -> None:
    """Print every figure of the README's table."""
    console = Console(highlight=False)
    prompts = [str(problem) for problem in held_out(most)]
    started = time.perf_counter()
    with ParallelLLM() as llm:
        start_s = time.perf_counter() - started
        llm.generate(prompts[:4])  # warm
        ratios = overhead(llm, prompts, 3 * pairs)  # a small difference of two noisy times
        console.print(f"run over bare requests, {most} traces: {median_range(ratios)}, n={len(ratios)}")
        table = Table("traces at once", "one after another / parallel", "token acceleration", "seconds, parallel")
        for size in [s for s in (1, 8, 64) if s <= most]:
            table.add_row(*gains(llm, prompts[:size], pairs))
        console.print(table)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"peak memory: {own:.2f} GiB in this process, {children:.2f} GiB in the largest of vLLM's")
    console.print(f"engine start: {start_s:.1f} s")
    console.print(f"import parallel_reason: {_seconds('import parallel_reason'):.3f} s")
    console.print(f"process start to first token: {_first_token():.1f} s")


def _first_token() -> float:
    code = """
from parallel_reason import ParallelLLM
with ParallelLLM() as llm:
    trace = llm.generate("22,26,31,53=27")[0]
    print(trace.started_at + trace.ledger.first_token_s)
"""
    started = time.time()
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout) - started


def _seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
