"""Paths that are whole traces, which fork and join by a dialect: self-consistency over parallel reasoning."""

import asyncio
import time
from typing import Any

import numpy as np

from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.runtime.arguments import AnyLimits, AnySampling, limits_of, sampling_of
from parallel_reason.runtime.prompts import Prompt
from parallel_reason.runtime.session import Session
from parallel_reason.strategies.branches import NO_ANSWER, Bools, Ints, Strategy
from parallel_reason.strategies.budget import Budget
from parallel_reason.trace import Trace


class TraceBranches:
    """See `Branches`. A trace goes on to its end: it is neither probed nor stopped after so many tokens.

    Attributes:
        names: the answer of each number.
        traces: those that ended, by path; one that was cancelled is not there.
    """

    def __init__(
        self,
        session: Session,
        prompt: Prompt,
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        budget: Budget | None = None,
        **options: Any,
    ) -> None:
        """``sampling`` is of each trace, whose seeds count on from its own; ``options`` are those of `Session.run`."""
        self._session, self._prompt, self._options = session, prompt, options
        self._sampling = sampling_of(sampling)
        self._limits = limits_of(limits, session.limits)
        self._budget = Budget() if budget is None else budget
        self._began = time.monotonic()
        self._granted: dict[int, tuple[int, int]] = {}  # to a path: tokens, and the clock when it started
        self.names: list[str] = []
        self.traces: dict[int, Trace] = {}
        self._tasks: list[asyncio.Task[list[Trace]] | None] = []
        self._cancelled: set[int] = set()

    @property
    def ended(self) -> Bools:
        """See `Branches.ended`."""
        return np.array(
            [path in self.traces or path in self._cancelled for path in range(len(self._tasks))], dtype=bool
        )

    @property
    def lengths(self) -> Ints:
        """Tokens on the critical path of each trace that ended, [paths]."""
        found = [self.traces.get(path) for path in range(len(self._tasks))]
        return np.array([trace.ledger.critical_path_tokens if trace else 0 for trace in found], dtype=np.int64)

    @property
    def answers(self) -> Ints:
        """See `Branches.answers`."""
        said = [self.traces[path].answer if path in self.traces else None for path in range(len(self._tasks))]
        self.names += [one for one in dict.fromkeys(said) if one is not None and one not in self.names]
        return np.array([NO_ANSWER if one is None else self.names.index(one) for one in said], dtype=np.int64)

    async def start(self, n: int) -> Ints:
        """See `Branches.start`."""
        first = len(self._tasks)
        self._tasks += [None] * n
        return np.arange(first, first + n)

    async def sample(self, paths: Ints, tokens: int | None = None, until_ended: int | None = None) -> None:
        """See `Branches.sample`. With ``until_ended`` the others run on, until a later call or `cancel`."""
        if tokens is not None:
            raise InputError("a trace of a dialect runs to its end: use sc, asc, esc, shortest or short_mk")
        wanted = len(paths) if until_ended is None else min(until_ended, len(paths))
        self._begin([int(path) for path in paths if self._tasks[path] is None and not self.ended[path]])
        while self.ended[paths].sum() < wanted:
            going = {task: int(path) for path in paths if (task := self._tasks[path]) and not self.ended[path]}
            done, _ = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                [self.traces[going[task]]] = task.result()

    def _begin(self, paths: list[int]) -> None:
        """Start these traces, with equal shares of what the budget has left; without a share they are cancelled."""
        spent = sum(trace.ledger.sampled_tokens for trace in self.traces.values())
        promised = sum(tokens for path, (tokens, _) in self._granted.items() if path not in self.traces)
        ends = [self._granted[path][1] + trace.ledger.critical_path_tokens for path, trace in self.traces.items()]
        clock = max(ends, default=0)
        limits = self._budget.bound(self._limits, len(paths), spent + promised, clock, time.monotonic() - self._began)
        for path in paths:
            if limits is None:
                self._cancelled.add(path)
            else:
                self._granted[path] = limits.tokens or 0, clock
                self._tasks[path] = asyncio.ensure_future(self._run(path, limits))

    async def _run(self, path: int, limits: Limits) -> list[Trace]:
        seed = self._sampling.seed
        sampling = self._sampling.model_copy(update={"seed": None if seed is None else seed + path, "n": 1})
        return await self._session.run(self._prompt, sampling, limits, **self._options)

    async def probe(self, paths: Ints) -> None:
        """Refused.

        Raises:
            InputError: always.
        """
        raise InputError("a trace of a dialect cannot be probed: use sc, asc, esc, shortest or short_mk")

    def cancel(self, paths: Ints) -> None:
        """See `Branches.cancel`."""
        for path in (int(path) for path in paths[~self.ended[paths]]):
            self._cancelled.add(path)
            if task := self._tasks[path]:
                task.cancel()

    async def close(self) -> None:
        """Stop what still runs, and wait until its KV is free."""
        self.cancel(np.arange(len(self._tasks)))
        await asyncio.gather(*(task for task in self._tasks if task), return_exceptions=True)


async def over_traces(
    strategy: Strategy,
    session: Session,
    prompt: Prompt,
    sampling: AnySampling | None = None,
    limits: AnyLimits | None = None,
    *,
    budget: Budget | dict[str, Any] | None = None,
    **options: Any,
) -> tuple[str | None, list[Trace]]:
    """Run a strategy whose paths are traces of the session's dialect.

    Args:
        sampling, limits: of each trace.
        budget: what all of them together may spend: each trace starts with an equal share of what is left as its
            limits, and one that reaches them ends there.
        options: further ones of `Session.run`.

    Returns:
        The answer, and the traces that came to their ends, in the order in which they were started.

    Raises:
        InputError: as `Session.run`; or the strategy probes, or stops paths after so many tokens.
    """
    bounds = None if budget is None else Budget.from_caller("budget", budget)
    branches = TraceBranches(session, prompt, sampling, limits, bounds, **options)
    try:
        number = await strategy.run(branches)
    finally:
        await branches.close()
    return (None if number < 0 else branches.names[number]), [branches.traces[path] for path in sorted(branches.traces)]
