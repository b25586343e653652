"""Countdown from the embedded model to a policy that is taught to spend few tokens, and what came of it.

    python -m rl.result                     # every part; the same command goes on with what an earlier one left

The embedded model is fine-tuned to spawn in waves of random size, and then trained by reinforcement learning, once for
each seed. All of these models solve the same held-out problems, greedily, and are compared problem by problem.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from parallel_reason import ParallelLLM, ParallelReasonError, Trace, TraceWriter, resume
from parallel_reason.tasks import find
from parallel_reason.tasks.countdown import Problem
from rl import sft, train
from rl.config import read_config
from rl.policy_config import PolicyConfig
from rl.search import first_steps, solution
from rl.sft_config import SftConfig

RESAMPLES = 10_000  # of problems, for an interval
Interval = tuple[float, float]


def solve(model: str | None, count: int, file: Path) -> list[Trace]:
    """The traces of a model on held-out problems, in their order, greedy; those that a file has are not run again."""
    problems = find("countdown").test(count)
    names = [problem.text for problem in problems]
    with ParallelLLM(model) as llm:
        kept = resume(file, **llm.circumstances())
        with TraceWriter(file) as writer:
            new = llm.generate(names, tasks=names, skip=kept.keys(), on_trace=writer.write)
    by_name = {trace.task: trace for trace in [*kept.values(), *new]}
    return [by_name[name] for name in names]


def interval(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """The 95% interval of a statistic over resampled problems.

    Args:
        values: of each problem, [problems] for a mean, or [problems, 2] for a ratio of sums.
    """
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(len(values), size=len(values))].mean(0) for _ in range(RESAMPLES)])
    figures = means if means.ndim == 1 else means[:, 0] / means[:, 1]
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)


def compare(
    traces: Sequence[Trace], start: Sequence[Trace], correct: Sequence[bool], before: Sequence[bool]
) -> dict[str, Any]:
    """A model's figures on some problems, and beside another's on the same ones, with intervals over problems.

    Args:
        start: the other model's traces; ``before`` their verdicts.
    """
    tokens = np.array(
        [[a.ledger.sampled_tokens, b.ledger.sampled_tokens] for a, b in zip(traces, start, strict=True)], float
    )
    better = np.array(correct, float) - np.array(before, float)
    return {
        "accuracy": float(np.mean(correct)),
        "accuracy_difference": float(better.mean()),
        "accuracy_difference_interval": interval(better),
        "sampled_tokens": float(tokens[:, 0].mean()),
        "token_ratio": float(tokens[:, 0].sum() / tokens[:, 1].sum()),
        "token_ratio_interval": interval(tokens),
        "critical_path_tokens": float(np.mean([trace.ledger.critical_path_tokens for trace in traces])),
        "threads": float(np.mean([len(trace.threads) for trace in traces])),
        "threads_by_ways": threads_by_ways(traces),
    }


def threads_by_ways(traces: Sequence[Trace]) -> dict[str, float]:
    """The mean number of threads on problems of which one first step leads to a solution, two or three, or more."""
    counts: dict[str, list[int]] = {"1": [], "2 or 3": [], "4 or more": []}
    for trace in traces:
        problem = Problem.parse(trace.prompt)
        ways = sum(solution(numbers, problem.target) is not None for _, numbers in first_steps(problem.numbers))
        if ways:
            counts["1" if ways == 1 else "2 or 3" if ways < 4 else "4 or more"].append(len(trace.threads))
    return {name: float(np.mean(threads)) for name, threads in counts.items() if threads}


def show(rows: dict[str, dict[str, Any]], problems: int) -> None:
    """Print the table."""
    table = Table(title=f"{problems} held-out problems, greedy, beside the embedded model; 95% intervals over problems")
    for column in (
        "",
        "accuracy",
        "difference",
        "sampled tokens",
        "ratio",
        "critical path",
        "threads",
        "by ways: 1, 2-3, 4+",
    ):
        table.add_column(column)
    for name, row in rows.items():
        low, high = row["accuracy_difference_interval"]
        least, most = row["token_ratio_interval"]
        table.add_row(
            name, f"{row['accuracy']:.1%}", f"{row['accuracy_difference']:+.1%} [{low:+.1%}, {high:+.1%}]",
            f"{row['sampled_tokens']:.0f}", f"{row['token_ratio']:.3f} [{least:.3f}, {most:.3f}]",
            f"{row['critical_path_tokens']:.0f}", f"{row['threads']:.1f}",
            ", ".join(f"{threads:.1f}" for threads in row["threads_by_ways"].values()),
        )  # fmt: skip
    Console().print(table)


def main(
    start: Annotated[Path, typer.Option(help="Configuration of rl.sft.")] = Path("rl/configs/waves.toml"),
    config: Annotated[Path, typer.Option(help="Configuration of rl.train.")] = Path("rl/configs/fewer_tokens.toml"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of rl.train, with seeds from 0 on.")] = 3,
    problems: Annotated[int, typer.Option(min=10, help="Held-out problems.")] = 1000,
    out: Annotated[
        Path, typer.Option(help="Folder of the traces and the table; runs have those of their configurations.")
    ] = Path("runs/result"),
) -> None:
    """Train, solve and compare."""
    taught, trained = read_config(SftConfig, start), read_config(PolicyConfig, config)
    out.mkdir(parents=True, exist_ok=True)
    models: dict[str, str | None] = {"embedded": None, "taught waves": str(sft.train(taught))}
    for seed in range(seeds):
        changes = {"seed": seed, "model": models["taught waves"], "out": f"{trained.out}-{seed}"}
        sampling = trained.sampling.model_copy(update={"seed": 100_000 * seed})
        run = PolicyConfig.model_validate({**trained.model_dump(), **changes, "sampling": sampling})
        models[f"seed {seed}"] = str(train.train(run))
    task = find("countdown")
    tests = task.test(problems)
    traces = {name: solve(model, problems, out / f"{name.replace(' ', '-')}.jsonl") for name, model in models.items()}
    correct = {
        name: [task.correct(problem, trace.answer) for problem, trace in zip(tests, solved, strict=True)]
        for name, solved in traces.items()
    }
    rows = {
        name: compare(solved, traces["embedded"], correct[name], correct["embedded"]) for name, solved in traces.items()
    }
    (out / "table.json").write_text(json.dumps(rows, indent=2))
    show(rows, problems)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ParallelReasonError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
