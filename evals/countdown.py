"""Accuracy on held-out Countdown problems, with its cost.

    python -m evals.countdown --problems 1000

Every trace is written as it finishes. With ``--resume`` an interrupted run goes on: finished traces are kept, failed
ones run again, and traces of another model, engine, dialect, sampling or limits are refused.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from evals.interval import wilson
from parallel_reason import (
    InputError,
    Limits,
    ParallelLLM,
    ParallelReasonError,
    SamplingParams,
    Trace,
    TraceWriter,
    aggregate,
    layout,
    resume,
)
from parallel_reason.tasks.countdown import HELD_OUT, Problem, held_out, solves


def evaluate(
    llm: ParallelLLM,
    problems: list[Problem],
    sampling: SamplingParams,
    limits: Limits,
    out: Path,
    on_trace: Callable[[Trace], None] = lambda trace: None,
) -> list[Trace]:
    """The trace of every problem, in order: what ``out`` has of them is kept, and the rest is run and appended to it.

    Args:
        sampling: ``n`` is 1.
        on_trace: called with each trace once it is written.

    Raises:
        InputError: ``out`` has traces that were made under other circumstances.
        CallbackError: a trace could not be written.
    """
    prompts = [str(problem) for problem in problems]
    kept = resume(out, **llm.circumstances(sampling, limits))
    with TraceWriter(out) as writer:

        def write(trace: Trace) -> None:
            writer.write(trace)
            on_trace(trace)

        run = llm.generate(prompts, sampling, limits, tasks=prompts, skip=kept, on_trace=write)
    traces = {trace.task: trace for trace in (*kept.values(), *run)}
    return [traces[prompt] for prompt in prompts]


def report(problems: list[Problem], traces: list[Trace]) -> Iterator[tuple[str, str]]:
    """Every figure of a run, with its name. Proportions have a 95% Wilson interval."""
    n = len(traces)
    ledgers = [trace.ledger for trace in traces]
    total = aggregate(ledgers)

    def proportion(hits: int) -> str:
        low, high = wilson(hits, n)
        return f"{hits / n:.1%} [{low:.1%}, {high:.1%}]  ({hits} of {n})"

    def mean(values: list[int]) -> str:
        return f"{sum(values) / n:.1f} (largest {max(values)})"

    yield "solved", proportion(sum(solves(t.answer, p) for t, p in zip(traces, problems, strict=True)))
    yield "failed", proportion(sum(trace.status == "failed" for trace in traces))
    yield "with a fork", proportion(total.forked)
    yield "with a malformed fork", proportion(total.malformed)
    yield "critical path, tokens", mean([ledger.critical_path_tokens for ledger in ledgers])
    yield "sampled tokens", mean([ledger.sampled_tokens for ledger in ledgers])
    yield "threads", mean([ledger.threads for ledger in ledgers])
    yield "longest context, tokens", mean([layout(trace).longest_context for trace in traces])
    yield "acceleration, of sums", f"{total.acceleration_of_sums:.2f}"
    yield "acceleration, mean", f"{total.mean_acceleration:.2f}"
    yield "context from cache", "unknown" if total.cached_share is None else f"{total.cached_share:.1%}"


def run(
    problems: Annotated[int, typer.Option(min=1, max=HELD_OUT, help="How many held-out problems.")] = 1000,
    model: Annotated[str | None, typer.Option(help="A model folder; default: the embedded model.")] = None,
    engine: Annotated[str, typer.Option(help="What decodes: vllm or torch.")] = "vllm",
    first: Annotated[bool, typer.Option("--first", help="Join on the first child that returns a result.")] = False,
    temperature: float = 0.0,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Traces, as JSONL.")] = Path("runs/countdown.jsonl"),
    resume: Annotated[bool, typer.Option("--resume", help="Keep the traces found there, and run the rest.")] = False,
) -> None:
    """Solve held-out problems and report accuracy and cost."""
    console = Console(highlight=False)
    if out.exists() and not resume:
        raise InputError(
            f"{out} is there already: --resume keeps its traces and runs the rest, --out names another file"
        )
    tasks = held_out(problems)
    sampling = SamplingParams(temperature=temperature, seed=seed)
    options = {"join_on": "first"} if first else {}
    with (
        ParallelLLM(model, engine=engine, dialect_options=options) as llm,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("problems", total=problems)
        traces = evaluate(llm, tasks, sampling, Limits(), out, lambda trace: progress.advance(bar))
    for name, value in report(tasks, traces):
        console.print(f"{name:24} {escape(value)}")


if __name__ == "__main__":
    try:
        typer.run(run)
    except ParallelReasonError as error:
        raise SystemExit(f"error: {error}") from None
