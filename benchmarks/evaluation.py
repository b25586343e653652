"""What an evaluation costs over the engine alone: sampling, grading, traces and samples on disk, figures.

    python -m benchmarks.evaluation

The embedded model solves problems of Countdown, several samples each, in three ways in turn: as an evaluation into a
folder, by `ParallelLLM.generate` alone, and as the bare requests of the first run sent straight to vLLM with the same
dependencies, at the same temperature and for as many traces at once. Times are from a warm engine with an empty KV
cache of requests; ratios are of pairs from one turn.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.overhead import send_again
from benchmarks.report import Report, median_range, ratio
from parallel_reason import ParallelLLM, read_traces
from parallel_reason.evaluation import evaluate, make_plan


def seconds(llm: ParallelLLM, work: Callable[[], object]) -> float:
    """Wall-clock seconds of some work on an idle engine."""
    assert llm.kv_is_free()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(
    problems: Annotated[int, typer.Option(min=1)] = 64,
    samples: Annotated[int, typer.Option(min=1, help="Of each problem.")] = 8,
    pairs: Annotated[int, typer.Option(min=1, help="Turns, after one that does not count.")] = 3,
    markdown: Annotated[bool, typer.Option("--markdown")] = False,
) -> None:
    """Print the ratios."""
    taken: dict[str, list[float]] = {"evaluation": [], "generate": [], "bare requests": []}
    with ParallelLLM() as llm, tempfile.TemporaryDirectory() as folder:
        sampling = {"temperature": 1.0, "n": samples}
        plan = make_plan("countdown", llm.dialect.name, problems=problems, sampling=sampling)
        texts = [problem.text for problem in plan.problems]
        evaluate(llm, plan, Path(folder, "first"))
        traces = list(read_traces(Path(folder, "first", "traces.jsonl")))
        for turn in range(pairs):
            ways: dict[str, Callable[[], object]] = {
                "evaluation": partial(evaluate, llm, plan, Path(folder, str(turn))),
                "generate": partial(llm.generate, texts, plan.sampling, plan.limits),
                "bare requests": lambda: llm.run_coroutine(send_again(llm, traces)),
            }
            for name in list(ways)[:: (-1) ** turn]:
                taken[name].append(seconds(llm, ways[name]))
    tokens = sum(trace.ledger.sampled_tokens for trace in traces)
    Report(Console(highlight=False), markdown).table(
        f"{problems} problems x {samples} samples, {tokens:,} sampled tokens, n={pairs}",
        ["way", "seconds", "tokens/s", "over bare requests"],
        [
            [
                name,
                median_range(times),
                f"{tokens / statistics.median(times):,.0f}",
                ratio(times, taken["bare requests"]),
            ]
            for name, times in taken.items()
        ],
    )


if __name__ == "__main__":
    typer.run(main)
