"""Strategies on recorded branches: accuracy and cost of each, over many resamplings, with no model.

    python -m evals.replay qwen3_8b_aime24.json
    python -m evals.replay qwen3_8b_aime24.json --strategy sc:n=16 --strategy esc --resamplings 100 --json
    python -m evals.replay qwen3_8b_aime24.json --as-published --resamplings 100      # the table of Parallel-Probe

A resampling serves the branches of every problem in another order, the same for all strategies, so that they are
compared on the same draws. With seed 0 the first hundred are those of the published table.
"""

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from parallel_reason import InputError, ParallelReasonError
from parallel_reason.strategies import REPLAYABLE, Budget, Strategy, find
from parallel_reason.strategies.recorded import Accounting, RecordedBranches, RecordedProblem, replay
from parallel_reason.strategies.recording import FORMS, read_recording, read_runs
from parallel_reason.tasks import find as find_task

Runs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Replay:
    """What all strategies of a table have in common."""

    problems: Sequence[RecordedProblem]
    accounting: Accounting
    budget: Budget | None = None
    seed: int = 0

    def runs(self, strategy: Strategy, first: int, last: int) -> Runs:
        """Right or not, critical path and total tokens of each run, [resamplings, problems, 3]."""
        return np.array([[self._run(strategy, problem, r) for problem in self.problems] for r in range(first, last)])

    def _run(self, strategy: Strategy, problem: RecordedProblem, resampling: int) -> tuple[float, int, int]:
        order = order_of(len(problem.lengths), self.seed + resampling)
        branches = RecordedBranches(problem, order, self.accounting, self.budget)
        answer = replay(strategy.run, branches)
        return float(answer >= 0 and answer == problem.right), branches.critical_path, branches.total_tokens


_orders: dict[tuple[int, int], npt.NDArray[np.int64]] = {}


def order_of(branches: int, seed: int) -> npt.NDArray[np.int64]:
    """The order in which a resampling serves so many branches."""
    if (branches, seed) not in _orders:
        order = list(range(branches))
        random.Random(seed).shuffle(order)
        _orders[branches, seed] = np.array(order)
    return _orders[branches, seed]


def figures(name: str, runs: Runs, seed: int = 0) -> dict[str, Any]:
    """The row of a strategy. Accuracies are shares, intervals 95%.

    ``accuracy_standard_error`` is of the mean over resamplings; ``accuracy_of_one_run`` is between which values one
    pass over these problems falls; ``..._over_problems`` is for other problems of the same kind: a bootstrap over
    problems.

    Args:
        runs: as of `Replay.runs`.
    """
    of_problems = runs.mean(0)
    passes = runs[:, :, 0].mean(1)
    draws = np.random.default_rng(seed).integers(len(of_problems), size=(4000, len(of_problems)))
    low, high = np.percentile(of_problems[draws].mean(1), [2.5, 97.5], axis=0)
    accuracy, sequential, total = of_problems.mean(0)
    error = passes.std(ddof=1) / len(passes) ** 0.5 if len(passes) > 1 else None
    return {
        "strategy": name,
        "accuracy": float(accuracy),
        "accuracy_standard_error": None if error is None else float(error),
        "accuracy_of_one_run": np.percentile(passes, [2.5, 97.5]).tolist(),
        "accuracy_over_problems": [float(low[0]), float(high[0])],
        "sequential_tokens": float(sequential),
        "sequential_tokens_over_problems": [float(low[1]), float(high[1])],
        "total_tokens": float(total),
        "total_tokens_over_problems": [float(low[2]), float(high[2])],
        "resamplings": len(runs),
        "problems": len(of_problems),
        "accuracy_by_problem": of_problems[:, 0].tolist(),
    }


def rows(replayed: Replay, strategies: Sequence[Strategy], resamplings: int, workers: int) -> Iterator[dict[str, Any]]:
    """The row of each strategy, in their order, as soon as it is there."""
    size = max(1, -(-resamplings // (2 * workers)))
    blocks = [(first, min(first + size, resamplings)) for first in range(0, resamplings, size)]
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        parts = [[pool.submit(partial(replayed.runs, strategy), *block) for block in blocks] for strategy in strategies]
        for strategy, futures in zip(strategies, parts, strict=True):
            yield figures(strategy.name, np.concatenate([future.result() for future in futures]), replayed.seed)


def table(title: str, every: Sequence[dict[str, Any]]) -> Table:
    """The rows, for people: accuracies in percent, tokens in thousands where they are many."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("strategy", no_wrap=True)
    for column in ("accuracy", "one run", "problems", "sequential", "total"):
        shown.add_column(column, justify="right")
    for row in every:
        one, other = row["accuracy_of_one_run"], row["accuracy_over_problems"]
        shown.add_row(
            row["strategy"],
            f"{100 * row['accuracy']:.1f}",
            f"{100 * one[0]:.1f} to {100 * one[1]:.1f}",
            f"{100 * other[0]:.1f} to {100 * other[1]:.1f}",
            _count(row["sequential_tokens"]),
            _count(row["total_tokens"]),
        )
    return shown


def _count(tokens: float) -> str:
    return f"{tokens / 1000:.1f}k" if tokens >= 10_000 else f"{tokens:,.0f}"


def run(
    file: Annotated[
        Path, typer.Argument(help="Recorded branches, a JSON list; or traces, which may fork.", show_default=False)
    ],
    strategy: Annotated[
        list[str] | None, typer.Option(help="A name, or with parameters: sc:n=16. Repeat it. Default: all that replay.")
    ] = None,
    resamplings: Annotated[int, typer.Option(min=1, help="Orders in which the branches are served.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the first order.")] = 0,
    answers: Annotated[
        str | None, typer.Option(help=f"What may vote: {', '.join(FORMS)}. Default: readable.", show_default=False)
    ] = None,
    probe_tokens: Annotated[
        int | None, typer.Option(min=0, help="Charged for each probe. Default: 16.", show_default=False)
    ] = None,
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published",
            help="As the table of Parallel-Probe counts: probes are free, unreadable answers vote, and a branch ends "
            "with the step after its last probe.",
        ),
    ] = False,
    task: Annotated[
        str | None, typer.Option(help="FILE is traces (JSONL) of this task, such as aime:FILE.", show_default=False)
    ] = None,
    total_tokens: Annotated[int | None, typer.Option(min=1, help="Budget of each problem, all paths together.")] = None,
    critical_path: Annotated[int | None, typer.Option(min=1, help="Budget of each problem, one after another.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of rows instead of a table.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Replay strategies on recorded branches: accuracy, and tokens one after another and in total.

    python -m evals.replay qwen3_8b_aime24.json --strategy sc:n=16 --strategy esc --resamplings 100

    python -m evals.replay qwen3_8b_aime24.json --as-published --resamplings 100

    "one run" is between which accuracies 95% of single passes over the file fall, "problems" the interval for other
    problems of the same kind.
    """
    form = answers or ("any" if as_published else "readable")
    if form not in FORMS:
        raise InputError(f"--answers {form}: there is {', '.join(FORMS)}")
    charge = probe_tokens if probe_tokens is not None else (0 if as_published else 16)
    strategies = [find(name) for name in strategy or REPLAYABLE]
    for one in strategies:
        if one.name.partition(":")[0] not in REPLAYABLE:
            raise InputError(
                f"strategy {one.name!r} needs a model; on recorded branches there is {', '.join(REPLAYABLE)}"
            )
    replayed = Replay(
        read_runs(file, find_task(task)) if task else read_recording(file, FORMS[form]),
        Accounting(charge, as_published),
        Budget(total_tokens=total_tokens, critical_path=critical_path),
        seed,
    )
    every = list(rows(replayed, strategies, resamplings, workers))
    if as_json:
        print(json.dumps(every))
    else:
        Console(highlight=False).print(table(f"{file.name}, {resamplings} resamplings", every))


if __name__ == "__main__":
    try:
        typer.run(run)
    except ParallelReasonError as error:
        raise SystemExit(f"error: {error}") from None
