"""``parallel-reason report``: one self-contained HTML page of one or several runs."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated

import numpy as np
import typer

from parallel_reason.cli.console import PlainConsole, print_note, status
from parallel_reason.cli.traces import TaskOption, TokenizerOption, Tokenizers, judge_by
from parallel_reason.evaluation.intervals import Z, clustered, problem_error
from parallel_reason.trace import aggregate
from parallel_reason.viewer import Counted, Figure, find_run, write_report

Groups = dict[str, list[Counted]]  # the samples of each problem


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders that eval wrote, or JSONL files of traces.")
    ],
    out: Annotated[Path, typer.Option(help="The HTML file; it is replaced.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="The heading of the page.")] = "Runs",
    task: TaskOption = None,
    tokenizer: TokenizerOption = None,
) -> None:
    """Write a page of runs: figures with intervals, charts, and every trace as a timeline and as text.

    The page carries all it needs: it opens from disk, asks no server for anything, and can be sent as it is. Runs with
    the same problems can be read side by side. Lines that cannot be read are named and left out.

    For example: parallel-reason report runs/none runs/parallel --out report.html
    """
    found = [find_run(path) for path in runs]
    judge_by(found, task)
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    with status(f"writing {out}"):
        count = write_report(out, found, Tokenizers(tokenizer), figures, title, made)
    for note in (note for run in found for note in run.notes):
        print_note(note)
    PlainConsole(soft_wrap=True).print(f"{out}: {count} traces, {out.stat().st_size / 1e6:.1f} MB")


def figures(samples: Sequence[Counted]) -> list[Figure]:
    """What the table says of a run; intervals are for problems drawn anew."""
    counts = aggregate(sample.ledger for sample in samples)
    groups: Groups = {}
    for sample in samples:
        groups.setdefault(sample.problem, []).append(sample)
    judged = {key: group for key, group in groups.items() if all(sample.correct is not None for sample in group)}
    return [
        Figure("problems", len(groups), digits=0),
        Figure("traces", counts.traces, digits=0),
        _share("accuracy", "avg@k: the share of right samples, mean over problems", judged, _right),
        _mean("critical path", "sampled tokens on the longest chain that waited, mean", groups, _critical),
        _mean("sampled tokens", "of all threads of a trace, mean", groups, _sampled),
        _mean("wall", "seconds from the start of a trace to its end, mean", groups, _wall, digits=2),
        _mean("threads", "of a trace, mean", groups, lambda one: one.ledger.threads),
        Figure("acceleration of sums", counts.acceleration_of_sums, digits=2, help="all sampled / all critical paths"),
        _mean("mean acceleration", "mean of the traces' ratios", groups, lambda one: one.ledger.acceleration, digits=2),
        _share("forked", "traces with a fork", groups, lambda one: one.ledger.forks > 0),
        _share(
            "malformed", "traces with a fork that could not be read", groups, lambda one: one.ledger.malformed_forks > 0
        ),
        Figure("cached", counts.cached_share, percent=True, help="of prefilled tokens, from the prefix cache"),
    ]


def _right(sample: Counted) -> bool:
    return sample.correct is True


def _critical(sample: Counted) -> float:
    return sample.ledger.critical_path_tokens


def _sampled(sample: Counted) -> float:
    return sample.ledger.sampled_tokens


def _wall(sample: Counted) -> float:
    return sample.ledger.wall_s


def _share(name: str, help: str, groups: Groups, hit: Callable[[Counted], bool]) -> Figure:
    if not groups:
        return Figure(name, None, percent=True, help=help)
    hits = [sum(map(hit, group)) for group in groups.values()]
    sizes = [len(group) for group in groups.values()]
    low, high = clustered(hits, sizes)
    value = fmean(h / n for h, n in zip(hits, sizes, strict=True))
    return Figure(name, value, low, high, percent=True, help=help)


def _mean(name: str, help: str, groups: Groups, of: Callable[[Counted], float], digits: int = 1) -> Figure:
    means = np.array([fmean(map(of, group)) for group in groups.values()], dtype=np.float64)
    value, error = float(means.mean()), problem_error(means)
    if len(means) < 2:
        return Figure(name, value, digits=digits, help=help)
    return Figure(name, value, value - Z * error, value + Z * error, digits=digits, help=help)
