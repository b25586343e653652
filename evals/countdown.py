"""Accuracy on held-out Countdown problems, with what it cost.

    python -m evals.countdown --problems 1000

Every trace is written as it finishes; a run that was interrupted goes on where it stopped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from evals.interval import wilson
from parallel_reason import Limits, ParallelLLM, ParallelReasonError, SamplingParams, Trace, read_traces
from parallel_reason.countdown import Problem, held_out, solves
from parallel_reason.errors import InputError


def report(problems: list[Problem], traces: list[Trace]) -> Iterator[tuple[str, str]]:
    """Every figure of a run, with its name. Shares come with a 95% Wilson interval."""
    n = len(traces)
    counts = [trace.ledger for trace in traces]

    def share(hits: int) -> str:
        low, high = wilson(hits, n)
        return f"{hits / n:.1%} [{low:.1%}, {high:.1%}]  ({hits} of {n})"

    def mean(values: list[float]) -> str:
        return f"{sum(values) / n:.1f} (largest {max(values):.0f})"

    yield "solved", share(sum(solves(t.answer, p) for t, p in zip(traces, problems, strict=True)))
    yield "with a fork", share(sum(c.forks > 0 for c in counts))
    yield "with a malformed fork", share(sum(c.malformed_forks > 0 for c in counts))
    yield "critical path, tokens", mean([c.critical_path_tokens for c in counts])
    yield "sampled tokens", mean([c.sampled_tokens for c in counts])
    yield "threads", mean([c.threads for c in counts])
    yield "longest thread, tokens", mean([longest_thread(trace) for trace in traces])
    yield "acceleration", f"{sum(c.acceleration for c in counts) / n:.2f}"
    yield "context from cache", f"{sum(c.cached_tokens for c in counts) / sum(c.prefilled_tokens for c in counts):.1%}"


def longest_thread(trace: Trace) -> int:
    """Tokens of prompt and output that one thread saw, the largest of the trace."""
    seen: dict[str, int] = {}
    longest = 0
    for thread in trace.threads:
        total = seen.get(thread.label, 0) + sum(len(span.ids) for span in thread.spans)
        longest = max(longest, total)
        for fork in thread.forks:
            before = seen.get(thread.label, 0) + sum(len(span.ids) for span in thread.spans[: fork.at])
            seen |= {child.label: before if fork.shares_prefix else 0 for child in fork.children}
    return longest


def run(
    problems: Annotated[int, typer.Option(min=1, max=2000, help="How many held-out problems.")] = 1000,
    model: Annotated[str | None, typer.Option(help="A model folder; default: the embedded model.")] = None,
    first: Annotated[bool, typer.Option("--first", help="Join on the first child that returns a result.")] = False,
    temperature: float = 0.0,
    seed: int = 0,
    out: Annotated[Path, typer.Option(help="Traces, as JSONL.")] = Path("runs/countdown.jsonl"),
    resume: Annotated[bool, typer.Option("--resume", help="Keep the traces found there, and run the rest.")] = False,
) -> None:
    """Solve held-out problems and report accuracy and cost."""
    console = Console(highlight=False)
    tasks = held_out(problems)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists() and not resume:
        raise InputError(
            f"{out} is there already: --resume keeps its traces and runs the rest, --out names another file"
        )
    done = {trace.prompt: trace for trace in read_traces(out)} if out.exists() else {}
    todo = [str(task) for task in tasks if str(task) not in done]
    if todo:
        options = {"join_on": "first"} if first else {}
        with (
            ParallelLLM(model, dialect_options=options) as llm,
            open(out, "a", encoding="utf-8") as log,
            Progress(console=console, disable=not console.is_terminal) as progress,
        ):
            bar = progress.add_task("problems", total=len(todo))

            def finished(_: int, trace: Trace) -> None:
                log.write(trace.to_json() + "\n")
                log.flush()
                done[trace.prompt] = trace
                progress.advance(bar)

            llm.generate(todo, SamplingParams(temperature=temperature, seed=seed), Limits(), on_trace=finished)
    for name, value in report(tasks, [done[str(task)] for task in tasks]):
        console.print(f"{name:24} {value}")


if __name__ == "__main__":
    try:
        typer.run(run)
    except ParallelReasonError as error:
        raise SystemExit(f"error: {error}") from None
