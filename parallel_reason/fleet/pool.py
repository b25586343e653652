"""Traces on a fleet: sent to engines as the dispatcher says, and sent again when an engine dies."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from parallel_reason.errors import EngineError, ParallelReasonError
from parallel_reason.fleet.actors import EngineActors
from parallel_reason.fleet.dispatch import Attempt, Dispatcher
from parallel_reason.fleet.member import Gone, Member
from parallel_reason.fleet.messages import EngineFacts, SessionOptions, TraceJob
from parallel_reason.fleet.settings import Fleet
from parallel_reason.fleet.status import EngineStatus
from parallel_reason.runtime.events import Event
from parallel_reason.trace import Status, Trace

log = logging.getLogger(__name__)
SCORES = 3  # engines that are asked for log-probs, if each of them dies


class NotRun(Exception):  # noqa: N818 - how a trace ended
    """No engine ran a trace to its end.

    Attributes:
        status, reason: of the trace.
    """

    def __init__(self, status: Status, reason: str) -> None:
        """``reason`` is for people."""
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason


CANCELLED = partial(NotRun, "cancelled", "cancelled by the caller")


@dataclass(slots=True)
class _Wanted:
    """A trace that somebody waits for; ``task`` is its newest attempt, ``emitted`` whether events were given out."""

    job: TraceJob
    ended: "asyncio.Future[Trace]"
    emit: Callable[[Event], None] | None
    emitted: bool = False
    task: "asyncio.Task[None] | None" = None

    def fail(self, error: Exception) -> None:
        """Nobody will run it."""
        if not self.ended.done():
            self.ended.set_exception(error)


class EnginePool:
    """Runs traces on the engines of a fleet. Make it with `open`."""

    def __init__(self, fleet: Fleet) -> None:
        """No engine is there yet."""
        self.actors: EngineActors
        self._dispatcher = Dispatcher(fleet.engines, fleet.traces_per_engine)
        self._wanted: dict[str, _Wanted] = {}
        self._finished: Counter[int] = Counter()  # traces that came back, by engine; and their tokens
        self._sampled: Counter[int] = Counter()

    @classmethod
    async def open(
        cls, fleet: Fleet, name: str, options: SessionOptions, *, grows: bool
    ) -> tuple["EnginePool", EngineFacts]:
        """Start all engines; what the first of them says of itself. Arguments and errors as of `EngineActors`."""
        pool = cls(fleet)
        pool.actors = await EngineActors.placed(fleet, name, options, pool, grows=grows)
        return pool, await pool.actors.start()

    async def run(self, job: TraceJob, emit: Callable[[Event], None] | None = None) -> Trace:
        """Run a trace to its end, on another engine if one dies. Cancelling this stops it.

        Raises:
            NotRun: it was cancelled before it began, it killed its engines, or no engine is left.
            EngineError: its engine died after events of it were given out; or the fleet was closed.
        """
        if self._dispatcher.hopeless:
            raise NotRun("failed", f"EngineError: {self.actors.why_hopeless()}")
        wanted = self._wanted[job.id] = _Wanted(job, asyncio.get_running_loop().create_future(), emit)
        self._dispatcher.submit(job.id)
        self._deal()
        try:
            return await wanted.ended
        except asyncio.CancelledError:
            self.cancel(job.id)
            if wanted.task is not None:  # what it holds is free once its attempt has ended
                await asyncio.wait([wanted.task])
            raise
        finally:
            del self._wanted[job.id]

    def cancel(self, trace_id: str) -> None:
        """Stop a trace; it ends with what it wrote."""
        attempt = self._dispatcher.cancel(trace_id)
        if attempt is not None:
            member = self.actors.members[attempt.engine]
            self.actors.spawn(self._stop(member, member.generation, trace_id))
        elif trace_id in self._wanted:
            self._wanted[trace_id].fail(CANCELLED())

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]``, by the engine with the fewest traces."""
        for _ in range(SCORES):
            serving = await self.actors.some_serve()
            member = min(serving, key=lambda each: len(self._dispatcher.on(each.number)))
            generation = member.generation
            try:
                scores: list[float] = await member.call("score", ids)
            except Gone as gone:
                self.actors.died(member, generation, str(gone))
            else:
                return scores
        raise EngineError(f"{SCORES} engines of fleet {self.actors.name!r} died while they scored {len(ids)} tokens")

    def traces_on(self, engine: int) -> list[str]:
        """The ids of the traces that an engine has."""
        return self._dispatcher.on(engine)

    def status(self) -> list[EngineStatus]:
        """Of every engine."""
        serving = {member.number for member in self.actors.serving}
        return [
            EngineStatus(
                name=member.name,
                state="given up" if member.lost else "serves" if member.number in serving else "starts",
                traces=len(self.traces_on(member.number)),
                finished=self._finished[member.number],
                sampled_tokens=self._sampled[member.number],
                restarts=member.generation,
            )
            for member in self.actors.members
        ]

    async def kv_is_free(self) -> bool:
        """Whether no engine holds KV; one that died holds none."""
        asked = [(member, member.generation) for member in self.actors.serving]
        answers = await asyncio.gather(*(member.call("kv_is_free") for member, _ in asked), return_exceptions=True)
        for (member, generation), answer in zip(asked, answers, strict=True):
            if isinstance(answer, Gone):
                self.actors.died(member, generation, str(answer))
            elif isinstance(answer, BaseException):
                raise answer
        return False not in answers

    async def close(self) -> None:
        """End what runs with an EngineError, and all engines."""
        for wanted in self._wanted.values():
            wanted.fail(EngineError("the fleet was closed while this call ran"))
        await self.actors.close()

    def serves(self, engine: int) -> None:
        """See `Traces`; so for the others."""
        self._dispatcher.serves(engine)
        self._deal()

    def died(self, engine: int, reason: str, *, blame: bool) -> None:
        """Its traces wait again, but for those that ended by this."""
        for trace_id, why in self._dispatcher.died(engine, blame=blame).items():
            if why == "cancelled":
                self._wanted[trace_id].fail(CANCELLED())
            else:
                log.error("trace %s is not run again: engines died while they ran it", trace_id)
                failed = NotRun("failed", f"EngineError: engines died while they ran it; of the last one: {reason}")
                self._wanted[trace_id].fail(failed)
        self._deal()

    def start_failed(self, engine: int) -> bool:
        """All traces end with the last engine."""
        for trace_id in self._dispatcher.start_failed(engine):
            self._wanted[trace_id].fail(NotRun("failed", f"EngineError: {self.actors.why_hopeless()}"))
        return self._dispatcher.is_lost(engine)

    def has_none(self, engine: int) -> bool:
        """Whether it has no trace."""
        return not self._dispatcher.on(engine)

    def _deal(self) -> None:
        """Send what the dispatcher gives out."""
        self.actors.metrics.queue(self._dispatcher)
        while attempts := self._dispatcher.deal():
            for attempt in attempts:
                wanted = self._wanted[attempt.trace]
                if wanted.emitted:
                    self._dispatcher.finished(attempt)
                    wanted.fail(EngineError("the engine died after it had streamed events of this trace; ask again"))
                else:
                    member = self.actors.members[attempt.engine]
                    wanted.task = self.actors.spawn(self._attempt(attempt, wanted, member, member.generation))

    async def _attempt(self, attempt: Attempt, wanted: _Wanted, member: Member, generation: int) -> None:
        """Run a trace on an engine, and see to what came of it; ``generation`` is of when the trace was dealt."""
        try:
            trace = await (self._streamed(member, wanted) if wanted.emit else member.call("run", wanted.job))
        except Gone as gone:
            self.actors.died(member, generation, str(gone), blame=gone.ran)
            return
        except ParallelReasonError as error:
            if self._dispatcher.finished(attempt):
                wanted.fail(error)
        else:
            if self._dispatcher.finished(attempt) and not wanted.ended.done():
                self._finished[attempt.engine] += 1
                self._sampled[attempt.engine] += trace.ledger.sampled_tokens
                self.actors.metrics.ended(attempt.engine, trace)
                wanted.ended.set_result(trace)
        self._deal()

    async def _streamed(self, member: Member, wanted: _Wanted) -> Trace:
        """The trace at the end of a stream, whose events are given out as they come."""
        assert wanted.emit is not None
        async for item in member.stream(wanted.job):
            if isinstance(item, Trace):
                return item
            wanted.emitted = True
            wanted.emit(item)
        raise EngineError("a stream ended without its trace")

    async def _stop(self, member: Member, generation: int, trace_id: str) -> None:
        try:
            await member.call("cancel", trace_id)
        except Gone as gone:
            self.actors.died(member, generation, str(gone))
