"""Recorded runs of one problem, served to a strategy as if they were sampled."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from parallel_reason.strategies.branches import NO_ANSWER, Bools, Ints
from parallel_reason.strategies.budget import Budget

T = TypeVar("T")


@dataclass(frozen=True)
class RecordedProblem:
    """The branches of one problem, as arrays.

    Attributes:
        question: what was asked.
        names: the answer of each number.
        right: the number of the right answer; NO_ANSWER if no branch ever said it.
        every: tokens between two probes.
        probes: the answer at ``every``, 2 ``every``, ... tokens, [branches, longest]; NO_ANSWER after the last.
        probe_counts: how many probes each branch has, [branches].
        lengths: tokens of each branch, of one that forks those of its critical path, [branches].
        finals: what each branch said at its end, [branches].
        sampled: by all threads of a branch after so many steps of its critical path, [branches, longest + 1]; None if
            no branch forks.
    """

    question: str
    names: list[str]
    right: int
    every: int
    probes: Ints
    probe_counts: Ints
    lengths: Ints
    finals: Ints
    sampled: Ints | None = None

    @classmethod
    def of(
        cls,
        question: str,
        gold: str,
        every: int,
        branches: Sequence[tuple[Sequence[str], int, str]],
        is_answer: Callable[[str], bool],
    ) -> "RecordedProblem":
        """From branches as they stand in a file.

        Args:
            branches: of each, its answers at every probe, its length in tokens, and its answer.
            is_answer: whether a text counts as an answer; others never vote.
        """
        numbers: dict[str, int] = {}

        def number(answer: str) -> int:
            return numbers.setdefault(answer, len(numbers)) if is_answer(answer) else NO_ANSWER

        counts = np.array([len(probes) for probes, _, _ in branches], dtype=np.int64)
        table = np.full((len(branches), max(1, counts.max(initial=0))), NO_ANSWER, dtype=np.int64)
        for row, (probes, _, _) in enumerate(branches):
            table[row, : len(probes)] = [number(answer) for answer in probes]
        finals = np.array([number(final) for _, _, final in branches], dtype=np.int64)
        lengths = np.array([length for _, length, _ in branches], dtype=np.int64)
        right = numbers.get(gold, NO_ANSWER)
        return cls(question, list(numbers), right, every, table, counts, lengths, finals)


@dataclass(frozen=True)
class Accounting:
    """What is charged, and when a branch is seen to end.

    Attributes:
        probe_tokens: sampled by one probe.
        ends_with_probes: as in the published table of Parallel-Probe: a branch ends with the step after its last probe,
            though its last tokens take longer, and those not yet sampled are charged to that step. False: it ends when
            it has sampled its tokens.
    """

    probe_tokens: int = 0
    ends_with_probes: bool = False


class RecordedBranches:
    """See `Branches`. Never waits for anything, so `replay` runs a strategy over it without an event loop.

    Attributes:
        total_tokens, critical_path: as a `Ledger` counts ``sampled_tokens`` and ``critical_path_tokens``.
    """

    def __init__(
        self, problem: RecordedProblem, order: Ints, accounting: Accounting, budget: Budget | None = None
    ) -> None:
        """``order``: which branch is served as which path, [at most branches]."""
        self._problem, self._order, self._accounting, self._budget = problem, order, accounting, budget
        self._lengths = problem.lengths[order]
        self._counts = problem.probe_counts[order]
        self._ends = (self._counts + 1) * problem.every if accounting.ends_with_probes else self._lengths
        self._started = 0
        self._positions = np.zeros(len(order), dtype=np.int64)
        self._ended = np.zeros(len(order), dtype=bool)
        self._answers = np.full(len(order), NO_ANSWER, dtype=np.int64)
        self._clock = self._latest = self._probed = 0
        self._spent = False

    @property
    def ended(self) -> Bools:
        """See `Branches.ended`."""
        return self._ended[: self._started]

    @property
    def lengths(self) -> Ints:
        """See `Branches.lengths`."""
        return self._positions[: self._started]

    @property
    def answers(self) -> Ints:
        """See `Branches.answers`."""
        return self._answers[: self._started]

    @property
    def total_tokens(self) -> int:
        """Sampled by all paths and probes."""
        sampled = self._positions
        if self._problem.sampled is not None:
            sampled = self._problem.sampled[self._order, self._positions]
        return int(sampled.sum()) + self._probed

    @property
    def critical_path(self) -> int:
        """Sampled one after another."""
        return int(max(self._clock, self._latest))

    async def start(self, n: int) -> Ints:
        """See `Branches.start`."""
        first = self._started
        if not self._spent:
            self._started = min(first + n, len(self._order))
        return np.arange(first, self._started)

    async def sample(self, paths: Ints, tokens: int | None = None, until_ended: int | None = None) -> None:
        """See `Branches.sample`."""
        going = paths[~self._ended[paths]]
        if not len(going):
            return
        before = self._positions[going]
        if until_ended is not None:
            left = until_ended - (len(paths) - len(going))
            if left <= 0:
                return
            if left < len(going):
                reach = int(np.partition(self._ends[going] - before, left - 1)[left - 1])
                tokens = reach if tokens is None else min(tokens, reach)
        wanted, granted = tokens, None
        if self._budget is not None:
            granted = self._budget.grant(len(going), self.total_tokens, self.critical_path)
        cut = granted is not None and (tokens is None or granted < tokens)
        if cut:
            tokens = granted
        self._advance(going, before, tokens)
        if not cut or self._ended[going].all():
            return
        if granted:  # what those that ended did not need is dealt out again
            await self.sample(paths, None if wanted is None else wanted - granted, until_ended)
        else:
            self._spend()

    def _advance(self, going: Ints, before: Ints, tokens: int | None) -> None:
        """Let paths go on by so many tokens each, or to their ends."""
        full = np.maximum(before, self._lengths[going])
        if tokens is None:
            after, ends = full, np.ones(len(going), dtype=bool)
        else:
            after = before + tokens
            ends = after >= self._ends[going]
            after = np.where(ends, full, after)
        self._positions[going] = after
        done = going[ends]
        self._ended[done] = True
        self._answers[done] = self._problem.finals[self._order[done]]
        longest = int((after - before).max())
        self._latest = max(self._latest, self._clock + longest)
        self._clock += longest if tokens is None else min(tokens, longest)

    async def probe(self, paths: Ints) -> None:
        """See `Branches.probe`: what the record has at the last probe that each path has passed.

        Probes that cost more than what is left use the budget up: none is asked.
        """
        going = paths[~self._ended[paths]]
        if not len(going):
            return
        if self._budget is not None:
            granted = self._budget.grant(len(going), self.total_tokens, self.critical_path)
            if granted is not None and granted < self._accounting.probe_tokens:
                self._spend()
                return
        last = np.minimum(self._positions[going] // self._problem.every, self._counts[going]) - 1
        seen = self._problem.probes[self._order[going], last]
        self._answers[going] = np.where(last >= 0, seen, NO_ANSWER)
        self._probed += self._accounting.probe_tokens * len(going)
        self._clock += self._accounting.probe_tokens

    def cancel(self, paths: Ints) -> None:
        """See `Branches.cancel`."""
        self._ended[paths] = True

    def _spend(self) -> None:
        """The budget is used up: stop all that runs."""
        self.cancel(np.flatnonzero(~self.ended))
        self._spent = True


def replay(strategy: Callable[[RecordedBranches], Coroutine[Any, Any, T]], branches: RecordedBranches) -> T:
    """What a strategy returns over recorded branches, run to its end here and now.

    Args:
        strategy: its ``run``.
    """
    coroutine = strategy(branches)
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a strategy waited for something other than its branches, which a replay cannot serve")
