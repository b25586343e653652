"""Training data from a model itself: sample a task, keep the traces that are worth learning from.

    python -m rl.distill rl/configs/distill.toml

Rejection sampling as in NPR's self-distillation (2512.07461) and Parallel-R1's cold start (2509.07980): kept are traces
that are correct and well formed and, as an option, shorter in critical path than the sequential ones. The kept traces
are ready for `rl.sft`; every rejected one is counted by its reason. The run can be stopped and goes on.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from parallel_reason import (
    Limits,
    ParallelLLM,
    ParallelReasonError,
    SamplingParams,
    Trace,
    TraceWriter,
    read_traces,
    resume,
)
from parallel_reason.record import FrozenRecord
from parallel_reason.tasks import Task, TaskProblem, find
from rl.config import read_config


class DistillConfig(FrozenRecord):
    """A run of ``python -m rl.distill``.

    Attributes:
        out: the folder of the run: ``sampled.jsonl``, every trace, and ``kept.jsonl``, those for training.
        prompt: name or file of a prompt template for the dialect; None for the problem alone.
        problems: of the task's training set, that is of those that are not in its test set.
        each: traces of a problem that are kept at most.
        must_fork: whether a trace without a fork is rejected.
        shorter_than: a file of sequential traces of the same problems; a trace whose critical path is not shorter than
            the shortest correct one of them is rejected.
    """

    out: Path
    model: str | None = None
    task: str = "countdown"
    engine: str = "vllm"
    engine_options: dict[str, Any] = Field(default_factory=dict)
    dialect: str | None = None
    dialect_options: dict[str, Any] = Field(default_factory=dict)
    prompt: str | None = None
    problems: int = Field(1000, ge=1)
    sampling: SamplingParams = SamplingParams(temperature=1.0, n=4, seed=0)
    limits: Limits = Limits()
    each: int = Field(1, ge=1)
    must_fork: bool = True
    shorter_than: Path | None = None
    seed: int = Field(0, ge=0)


def rejection(trace: Trace, correct: bool, must_fork: bool, shortest: int | None) -> str | None:
    """Why a trace is not worth learning from, in words; None if it is.

    Args:
        correct: what the task's verifier says.
        shortest: the critical path that it must stay below, in tokens; None if there is no such bound.
    """
    if trace.status != "finished":
        return f"did not finish ({trace.status})"
    if trace.ledger.malformed_forks:
        return "has a malformed fork"
    if any(thread.status == "failed" for thread in trace.threads):
        return "has a thread that failed"
    if not correct:
        return "is wrong"
    if must_fork and not trace.ledger.forks:
        return "does not fork"
    if shortest is not None and trace.ledger.critical_path_tokens >= shortest:
        return "is no shorter than the sequential one"
    return None


def select(
    problems: Sequence[TaskProblem], traces: Sequence[Trace], task: Task, config: DistillConfig
) -> tuple[list[Trace], Counter[str]]:
    """The traces to train on, the shortest critical paths first of each problem, and how many were rejected and why."""
    by_key = {problem.key: problem for problem in problems}
    shortest = sequential_paths(config.shorter_than, by_key, task) if config.shorter_than else {}
    rejected: Counter[str] = Counter()
    good: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        problem = by_key[trace.task or ""]
        correct = task.correct(problem, trace.answer)
        reason = rejection(trace, correct, config.must_fork, shortest.get(problem.key))
        if reason is None:
            good[problem.key].append(trace)
        else:
            rejected[reason] += 1
    kept = []
    for group in good.values():
        distinct = {tuple(thread.text for thread in trace.threads): trace for trace in group}
        rejected["says the same as another"] += len(group) - len(distinct)
        best = sorted(distinct.values(), key=lambda trace: trace.ledger.critical_path_tokens)
        rejected[f"beyond {config.each} of a problem"] += len(best[config.each :])
        kept += best[: config.each]
    return kept, +rejected


def sequential_paths(file: Path, problems: dict[str, TaskProblem], task: Task) -> dict[str, int]:
    """The critical path of the shortest correct trace of each problem in a file, in tokens.

    Raises:
        InputError: the file cannot be read.
    """
    shortest: dict[str, int] = {}
    for trace in read_traces(file):
        if trace.task in problems and task.correct(problems[trace.task], trace.answer):
            length = trace.ledger.critical_path_tokens
            shortest[trace.task] = min(length, shortest.get(trace.task, length))
    return shortest


def distill(config: DistillConfig) -> tuple[int, Counter[str]]:
    """Sample and select; how many traces were kept, and why others were not.

    Raises:
        ParallelReasonError: naming what is wrong and the fix; traces so far are kept, and the next run goes on.
    """
    task = find(config.task)
    problems = {problem.key: problem for problem in first_problems(task, config.problems, config.seed)}
    sampled = config.out / "sampled.jsonl"
    with ParallelLLM(
        config.model,
        engine=config.engine,
        dialect=config.dialect,
        dialect_options=config.dialect_options,
        **config.engine_options,
    ) as llm:
        earlier = resume(sampled, **llm.circumstances(config.sampling, config.limits))
        with TraceWriter(sampled) as writer:
            new = llm.generate(
                [problem.text for problem in problems.values()],
                config.sampling,
                config.limits,
                prompt=config.prompt,
                tasks=list(problems),
                skip=earlier,
                on_trace=writer.write,
                use_tqdm=True,
            )
    kept, rejected = select(list(problems.values()), [*earlier.values(), *new], task, config)
    unfinished = config.out / "kept.jsonl.unfinished"
    unfinished.unlink(missing_ok=True)
    with TraceWriter(unfinished) as writer:
        for trace in kept:
            writer.write(trace)
    unfinished.replace(config.out / "kept.jsonl")
    return len(kept), rejected


def first_problems(task: Task, count: int, seed: int) -> list[TaskProblem]:
    """The first distinct problems for training; fewer if the task has fewer."""
    found: dict[str, TaskProblem] = {}
    repeats = 0
    for problem in task.train(seed):
        repeats = repeats + 1 if problem.key in found else 0
        found.setdefault(problem.key, problem)
        if len(found) == count or repeats > 10 * count:
            break
    return list(found.values())


def main(config: Annotated[Path, typer.Argument(help="A TOML file; rl/configs has an example.")]) -> None:
    """Sample a task with a model, and keep traces that are worth training on. The same command goes on with a run."""
    read = read_config(DistillConfig, config)
    kept, rejected = distill(read)
    typer.echo(f"kept {kept} traces in {read.out / 'kept.jsonl'}")
    for reason, count in rejected.most_common():
        typer.echo(f"{count:6} rejected: {reason}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ParallelReasonError, OSError) as error:  # of these, a full disk: the last whole checkpoint is kept
        raise SystemExit(f"error: {error}") from None
