"""Rollouts: groups of traces of one problem, sampled by a session, verified and rewarded."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from parallel_reason import Limits, ParallelLLM, SamplingParams, Trace, TraceWriter
from parallel_reason.tasks import Task, TaskProblem
from rl.objectives import Objective
from rl.progress_bonus import Progress
from rl.rewards import Part, Valued, reward_parts


@dataclass(frozen=True)
class Rollout:
    """One trace and what it is worth.

    Attributes:
        correct: what the task's verifier says.
        parts: of the reward, by kind.
    """

    problem: TaskProblem
    trace: Trace
    correct: bool
    parts: dict[str, float]

    @property
    def reward(self) -> float:
        """The sum of the parts."""
        return sum(self.parts.values())

    @property
    def malformed(self) -> bool:
        """Whether a fork of it could not be read."""
        return self.trace.ledger.malformed_forks > 0


class RolloutSource:
    """Samples rollouts with the policy that an engine holds.

    Attributes:
        sampling: ``n`` is the size of a group; ``seed`` that of the first batch.
        staleness: how many batches old the weights may be that sampled a batch: 0, they are the newest.
    """

    staleness = 0

    def __init__(
        self,
        llm: ParallelLLM,
        task: Task,
        sampling: SamplingParams,
        limits: Limits,
        parts: Sequence[Part],
        *,
        seed: int = 0,
        prompt: str | None = None,
        folder: Path | None = None,
    ) -> None:
        """Nothing is sampled yet.

        Args:
            parts: of the reward.
            seed: of the order of the problems.
            prompt: the name or file of a prompt template, into which each problem is put.
            folder: where the traces of every batch are written, a file each.
        """
        self.sampling = sampling
        self._llm = llm
        self._task = task
        self._limits = limits
        self._parts = list(parts)
        self._prompt = prompt
        self._folder = folder
        self._problems = enumerate(task.train(seed))

    def sample(self, batch: int, groups: int) -> list[list[Rollout]]:
        """A batch of rollouts, [groups, rollouts]; batches come in ascending order, some may be left out.

        Args:
            batch: its number, from 0; it decides which problems these are, and the noise.
        """
        return self.run(batch, self.problems(batch, groups))

    def problems(self, batch: int, groups: int) -> list[TaskProblem]:
        """Those of a batch; asked for in ascending order."""
        return [problem for _, problem in itertools.islice(self._from(batch * groups), groups)]

    def run(self, batch: int, problems: list[TaskProblem]) -> list[list[Rollout]]:
        """A batch of rollouts of its problems; several may run at once."""
        sampling = self.sampling.model_copy(update={"seed": (self.sampling.seed or 0) + batch})
        keys = [problem.key for problem in problems]
        with ExitStack() as stack:
            on_trace = None
            if self._folder is not None:
                file = self._folder / f"{batch:06}.jsonl"
                file.unlink(missing_ok=True)  # of an attempt that was cut short
                on_trace = stack.enter_context(TraceWriter(file)).write
            traces = self._llm.generate(
                [problem.text for problem in problems],
                sampling,
                self._limits,
                prompt=self._prompt,
                tasks=keys,
                on_trace=on_trace,
            )
        parts = [p.measured(self._llm, problems, traces) if isinstance(p, Progress) else p for p in self._parts]
        return verified(self._task, parts, problems, traces, batch)

    def _from(self, first: int) -> Iterator[tuple[int, TaskProblem]]:
        """The problems from a number on."""
        return itertools.dropwhile(lambda numbered: numbered[0] < first, self._problems)


def verified(
    task: Task, parts: Sequence[Valued], problems: Sequence[TaskProblem], traces: Sequence[Trace], batch: int = 0
) -> list[list[Rollout]]:
    """The rollouts of traces, [problems, rollouts of each].

    Args:
        traces: those of the first problem, then those of the second, and so on; as many of each.
        batch: its number, for rewards that change with time.
    """
    size = len(traces) // len(problems)
    groups = []
    for number, problem in enumerate(problems):
        group = []
        for trace in traces[number * size : (number + 1) * size]:
            correct = task.correct(problem, trace.answer)
            group.append(Rollout(problem, trace, correct, reward_parts(parts, trace, correct, batch)))
        groups.append(group)
    return groups


@dataclass(frozen=True)
class Weighed:
    """What an objective makes of the rollouts of an update, each [groups, rollouts].

    Attributes:
        kept: which of them count.
    """

    rewards: Tensor
    advantages: Tensor
    weights: Tensor
    kept: Tensor


def weigh(objective: Objective, groups: Sequence[Sequence[Rollout]]) -> Weighed:
    """The advantage of every rollout of an update, and the weight of each of its tokens. Groups are of one size.

    A rollout that sampled nothing, or that failed in the engine, is left out.
    """
    rewards = torch.tensor([[rollout.reward for rollout in group] for group in groups])
    tokens = torch.tensor([[rollout.trace.ledger.sampled_tokens for rollout in group] for group in groups])
    failed = torch.tensor([[rollout.trace.status == "failed" for rollout in group] for group in groups])
    malformed = torch.tensor([[rollout.malformed for rollout in group] for group in groups])
    kept = (tokens > 0) & ~failed
    if objective.drops_malformed:
        kept &= ~malformed
    return Weighed(rewards, objective.advantages(rewards, kept), objective.weights(tokens, kept), kept)


def figures(groups: Sequence[Sequence[Rollout]]) -> dict[str, float]:
    """What is logged of rollouts, by name; the mean over rollouts where nothing else is said."""
    rollouts = [rollout for group in groups for rollout in group]
    ledgers = [rollout.trace.ledger for rollout in rollouts]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    parts: dict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        for kind, value in rollout.parts.items():
            parts[kind].append(value)
    return {
        "reward": mean([rollout.reward for rollout in rollouts]),
        **{f"reward/{kind}": mean(values) for kind, values in parts.items()},
        "accuracy": mean([rollout.correct for rollout in rollouts]),
        f"pass@{len(groups[0])}": mean([any(rollout.correct for rollout in group) for group in groups]),
        "forked": mean([ledger.forks > 0 for ledger in ledgers]),
        "malformed": mean([rollout.malformed for rollout in rollouts]),
        "failed": mean([rollout.trace.status == "failed" for rollout in rollouts]),
        "cut_by_a_limit": mean([rollout.trace.status == "length" for rollout in rollouts]),
        "threads": mean([ledger.threads for ledger in ledgers]),
        "sampled_tokens": mean([ledger.sampled_tokens for ledger in ledgers]),
        "critical_path_tokens": mean([ledger.critical_path_tokens for ledger in ledgers]),
        "groups_without_variance": mean([len({rollout.reward for rollout in group}) == 1 for group in groups]),
    }
