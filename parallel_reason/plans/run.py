"""`PlanRun`: a plan while it runs: the asyncio shell over `PlanState`. Every change starts what it made ready."""

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from pydantic import Field

from parallel_reason.errors import InputError
from parallel_reason.plans.call import Call, Problem
from parallel_reason.plans.references import filled
from parallel_reason.plans.result import Outcome, PlanResult
from parallel_reason.plans.state import PlanState
from parallel_reason.plans.streams import closing
from parallel_reason.plans.tools import described, outcome_of
from parallel_reason.record import FrozenRecord

Tools = Mapping[str, Callable[..., Any]]
Items = Iterable[Call | Problem] | AsyncIterable[Call | Problem]
OnOutcome = Callable[[Call, Outcome], object]


class PlanLimits(FrozenRecord):
    """Bounds of a plan; None means no bound. A dict of these fields will do wherever one is taken.

    Attributes:
        at_once: calls that run at the same time; more of them wait.
        deadline_s: seconds from the start of the plan; what has not ended then is cancelled.
        call_deadline_s: seconds of one call, unless it has its own.
        calls: of the whole plan; a planner that goes on is stopped there.
        text_characters: of one result within a text; the rest is left out, and the text says so.
    """

    at_once: int | None = Field(None, ge=1)
    deadline_s: float | None = Field(None, gt=0)
    call_deadline_s: float | None = Field(None, gt=0)
    calls: int = Field(1000, ge=1)
    text_characters: int = Field(100_000, ge=1)


AnyPlanLimits = PlanLimits | dict[str, Any]


class PlanRun:
    """A plan that runs while calls are added to it. One event loop, used once.

    ``add`` calls, ``close`` when no more come, and await ``result``. Cancelling that cancels every call.
    """

    def __init__(
        self,
        tools: Tools | None = None,
        limits: AnyPlanLimits | None = None,
        *,
        known: Mapping[str, Any] | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> None:
        """No call yet.

        Args:
            tools: name to function, for calls that name theirs.
            known: results of an earlier plan, id to value, to which calls may refer.
            on_outcome: called with each call as it ends; what it raises is a problem of the plan.
        """
        self.limits = PlanLimits.from_caller("limits", limits or {})
        self.problems: list[str] = []
        self._tools = tools or {}
        self._state = PlanState(known, ranked=self.limits.at_once is not None)
        self._on_outcome = on_outcome
        self._reported = 0  # outcomes
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._done = asyncio.Event()
        self._stopped = False  # at the deadline, or cancelled

    def add(self, call: Call) -> None:
        """One more call, which starts now if it can. One that cannot be used ends as failed, or is a problem.

        After the deadline, or once the plan was cancelled, it does nothing.
        """
        if self._stopped:
            return
        if call.id in self._state.calls:
            self.problems.append(f"call {call.id} comes twice; the first one counts")
            return
        self._state.add(call)
        if isinstance(call.tool, str) and call.tool not in self._tools:
            there = ", ".join(self._tools) or "none"
            self._state.end(call.id, Outcome("failed", f"unknown tool {call.tool!r}; there is {there}"))
        self._go_on()

    def close(self) -> None:
        """No more calls will come."""
        self._state.close()
        self._go_on()

    def cancel(self, call_id: str, reason: str = "cancelled by the caller") -> None:
        """Stop one call; all that need it are skipped. One that has ended is ignored.

        Raises:
            InputError: the plan has no such call.
        """
        if call_id not in self._state.calls:
            raise InputError(f"the plan has no call {call_id!r}; it has {', '.join(self._state.calls) or 'none'}")
        self._state.end(call_id, Outcome("cancelled", reason))
        if call_id in self._tasks:
            self._tasks.pop(call_id).cancel()
        self._go_on()

    async def result(self) -> PlanResult:
        """Wait for the end of every call, or the deadline."""
        limit = self.limits.deadline_s
        try:
            async with asyncio.timeout_at(None if limit is None else self._started + limit):
                await self._done.wait()
        except TimeoutError:  # what has ended by then is the result
            pass
        finally:
            await self._stop(f"deadline_s={limit}")
        state = self._state
        outcomes = {name: state.outcomes[name] for name in state.calls}
        return PlanResult(dict(state.calls), outcomes, tuple(self.problems), self._loop.time() - self._started)

    async def read(self, items: Items) -> None:
        """Add calls as they come, then close. A source that raises is a problem, and what it gave counts."""
        try:
            if isinstance(items, AsyncIterable):
                async with closing(items) as stream:
                    async for item in stream:
                        if not self._take(item):
                            break
            else:
                all(map(self._take, items))
        except Exception as error:  # of a planner; the calls that it wrote are good
            self.problems.append(f"the plan ended early: {described(error)}")
        self.close()

    def _take(self, item: Call | Problem) -> bool:
        """One item of a source; whether to go on reading."""
        if isinstance(item, Problem):
            self.problems.append(item.text)
        elif len(self._state.calls) >= self.limits.calls:
            self.problems.append(f"the plan was cut at limits.calls={self.limits.calls}")
            return False
        else:
            self.add(item)
        return True

    def _go_on(self) -> None:
        """Start all that may start now, and say so if nothing is left."""
        free = self.limits.at_once
        while (free is None or len(self._tasks) < free) and (call := self._state.start()) is not None:
            task = self._loop.create_task(self._outcome(call))
            self._tasks[call.id] = task
            task.add_done_callback(partial(self._ended, call.id))
        self._report()
        if self._state.done:
            self._done.set()

    async def _outcome(self, call: Call) -> Outcome:
        function = self._tools[call.tool] if isinstance(call.tool, str) else call.tool
        deadline = self.limits.call_deadline_s if call.deadline_s is None else call.deadline_s
        try:
            args, kwargs = filled((call.args, dict(call.kwargs)), self._state.results, self.limits.text_characters)
        except Exception as error:  # a part that a result does not have, or a result whose text fails
            return Outcome("failed", described(error))
        outcome = await outcome_of(function, args, kwargs, deadline)
        return outcome.since(self._started)

    def _ended(self, name: str, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled() or self._tasks.get(name) is not task:
            return
        del self._tasks[name]
        self._state.end(name, task.result())
        self._go_on()

    def _report(self) -> None:
        """Call ``on_outcome`` for what has ended since the last time."""
        if self._on_outcome is None:
            return
        ended = list(self._state.outcomes.items())[self._reported :]
        self._reported += len(ended)
        for name, outcome in ended:
            try:
                self._on_outcome(self._state.calls[name], outcome)
            except Exception as error:  # the caller's own code must not end the plan
                self.problems.append(f"on_outcome raised for call {name}: {described(error)}")

    async def _stop(self, reason: str) -> None:
        """End what has not ended, and take nothing more."""
        self._stopped = True
        for name, task in self._tasks.items():
            if task.done():  # in this very moment
                self._state.end(name, task.result())
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for name in self._state.calls:
            if name not in self._state.outcomes:
                self._state.end(name, Outcome("cancelled", reason))
        for task in tasks:
            task.cancel()
        self._report()
        if tasks:
            await asyncio.wait(tasks)  # each waits for its own call no longer than its grace


async def run_plan(
    items: Items,
    tools: Tools | None = None,
    limits: AnyPlanLimits | None = None,
    *,
    known: Mapping[str, Any] | None = None,
    on_outcome: OnOutcome | None = None,
) -> PlanResult:
    """Run calls to the end, each as soon as what it needs is there, while more of them come.

    Nothing that a call does ends the plan: it fails, and what needs it is skipped. Cancelling it cancels every call.

    Args:
        items: calls, or an async iterator that yields them, such as a planner that still writes.
        tools, known, on_outcome: as in `PlanRun`.
    """
    run = PlanRun(tools, limits, known=known, on_outcome=on_outcome)
    reading = asyncio.ensure_future(run.read(items))
    try:
        return await run.result()
    finally:
        reading.cancel()
        await asyncio.wait([reading], timeout=1.0)
