"""Countdown from the embedded model to a policy that is taught to spend few tokens, and what came of it.

    python -m rl.result                     # every part; the same command goes on with what an earlier one left

The embedded model is fine-tuned to spawn in waves of random size, and then trained by reinforcement learning, once for
each seed. All of these models solve the same held-out problems, greedily, each into a folder that `parallel-reason
compare` and `report` take.
"""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from parallel_reason import ParallelLLM, ParallelReasonError
from parallel_reason.evaluation import Sample, compare, evaluate, make_plan, read_run
from parallel_reason.tasks.countdown import Problem
from rl import sft, train
from rl.config import read_config
from rl.policy_config import PolicyConfig
from rl.search import first_steps, solution
from rl.sft_config import SftConfig

START = "embedded"


def solve(model: str | None, problems: int, folder: Path) -> list[Sample]:
    """The samples of a model on held-out problems, greedy; those that the folder has are not run again."""
    with ParallelLLM(model) as llm:
        plan = make_plan("countdown", llm.dialect.name, problems=problems, sampling={"temperature": 0.0, "n": 1})
        evaluate(llm, plan, folder)
    return read_run(folder)[1]


def threads_by_ways(samples: Sequence[Sample]) -> dict[str, float]:
    """The mean number of threads on problems of which one first step leads to a solution, two or three, or more."""
    counts = defaultdict(list)
    for sample in samples:
        problem = Problem.parse(sample.problem)
        ways = sum(solution(numbers, problem.target) is not None for _, numbers in first_steps(problem.numbers))
        counts["none" if not ways else "1" if ways == 1 else "2-3" if ways < 4 else "4+"].append(sample.ledger.threads)
    return {name: statistics.mean(threads) for name, threads in sorted(counts.items())}


def row(name: str, samples: Sequence[Sample], start: Sequence[Sample]) -> list[str]:
    """A model beside the one it started from."""
    found = compare(start, samples)
    ways = [f"{name}: {threads:.1f}" for name, threads in threads_by_ways(samples).items()]
    return [
        name,
        f"{found.second:.1%}",
        f"{found.difference:+.1%} [{found.low:+.1%}, {found.high:+.1%}]",
        f"{statistics.mean(sample.ledger.sampled_tokens for sample in samples):.0f}",
        f"{found.sampled_tokens.value:.3f} [{found.sampled_tokens.low:.3f}, {found.sampled_tokens.high:.3f}]",
        f"{found.critical_path.value:.3f} [{found.critical_path.low:.3f}, {found.critical_path.high:.3f}]",
        ", ".join(ways),
    ]


def main(
    start: Annotated[Path, typer.Option(help="Configuration of rl.sft.")] = Path("rl/configs/waves.toml"),
    config: Annotated[Path, typer.Option(help="Configuration of rl.train.")] = Path("rl/configs/fewer_tokens.toml"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of rl.train, with seeds from 0 on.")] = 3,
    problems: Annotated[int, typer.Option(min=10, help="Held-out problems.")] = 1000,
    out: Annotated[Path, typer.Option(help="Folder of the evaluations.")] = Path("runs/result"),
) -> None:
    """Train, solve and compare."""
    taught, trained = read_config(SftConfig, start), read_config(PolicyConfig, config)
    models: dict[str, str | None] = {START: None, "waves": str(sft.train(taught))}
    for seed in range(seeds):
        sampling = trained.sampling.model_copy(update={"seed": 100_000 * seed})
        changes = {"seed": seed, "model": models["waves"], "out": f"{trained.out}-{seed}", "sampling": sampling}
        models[f"seed-{seed}"] = str(train.train(PolicyConfig.model_validate({**trained.model_dump(), **changes})))
    samples = {name: solve(model, problems, out / name) for name, model in models.items()}
    table = Table(title=f"{problems} held-out problems, greedy, beside the embedded model; 95% intervals over problems")
    for column in ("", "accuracy", "difference", "tokens", "tokens / its", "critical path / its", "threads by ways"):
        table.add_column(column)
    for name, solved in samples.items():
        table.add_row(*row(name, solved, samples[START]))
    Console().print(table)


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ParallelReasonError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
