"""`FleetSession`: the face of `Session` over engines on Ray."""

import asyncio
import os
import time
import uuid
from collections.abc import Callable
from typing import Any

from parallel_reason import dialects
from parallel_reason.dialects import AnyDialect
from parallel_reason.dialects.base import Dialect
from parallel_reason.fleet.cluster import connect, disconnect
from parallel_reason.fleet.engine import FleetEngine, absolute
from parallel_reason.fleet.messages import SessionOptions, TraceJob
from parallel_reason.fleet.pool import EnginePool, NotRun
from parallel_reason.fleet.settings import Fleet
from parallel_reason.fleet.status import EngineStatus
from parallel_reason.limits import Limits
from parallel_reason.runtime.arguments import AnyLimits, check_traces_at_once
from parallel_reason.runtime.events import Event
from parallel_reason.runtime.prompts import RenderedPrompt
from parallel_reason.runtime.session import Session
from parallel_reason.runtime.versions import versions
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Span, Thread, Trace, tally


class FleetSession(Session):
    """A session whose traces run on the engines of a fleet, each trace on one of them.

    Its calls are those of `Session`, with the same results for the same seeds. A trace of an engine that dies is run
    again on another, under the same id; it comes back once. One whose engines died is a trace with status ``failed``.
    """

    engine: FleetEngine

    def __init__(
        self, engine: FleetEngine, dialect: Dialect, *, limits: AnyLimits | None = None, traces_at_once: int = 256
    ) -> None:
        """Over a fleet that runs; see `start`."""
        super().__init__(engine, dialect, limits=limits, traces_at_once=traces_at_once)
        self._connected = False

    @classmethod
    async def start(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        fleet: Fleet | dict[str, Any] | None = None,
        limits: AnyLimits | None = None,
        traces_at_once: int | None = None,
        **options: Any,
    ) -> "FleetSession":
        """Start engines on Ray, all with one model.

        Args:
            model: as in `Session.start`; a folder must be on every node, as shared storage is.
            fleet: how many engines, and what each gets; a record or a dict of its fields.
            traces_at_once: traces in flight on all engines; as many as the fleet takes if None.
            options: as in `Session.start`: ``dialect``, ``engine`` and so on; each engine gets them.

        Raises:
            ModelError, InputError, EngineError: as `Session.start`; or Ray has no room for the engines.
        """
        chosen = Fleet() if fleet is None else Fleet.from_caller("fleet", fleet)
        if traces_at_once is not None:
            check_traces_at_once(traces_at_once)
        connection = await asyncio.to_thread(connect, chosen)
        name = chosen.name or f"fleet-{uuid.uuid4().hex[:8]}"
        folder = None if model is None else absolute(os.fspath(model))
        given = SessionOptions(folder, {"limits": limits, **options})
        try:
            pool, facts = await EnginePool.open(chosen, name, given, grows=connection != "own")
        except BaseException:
            if connection != "given":
                disconnect()
            raise
        engine = FleetEngine(pool, facts)
        bound = dialects.bind(facts.dialect, engine.tokenizer, **facts.dialect_options)
        most = chosen.engines * chosen.traces_per_engine
        session = cls(engine, bound, limits=limits, traces_at_once=traces_at_once or most)
        session._connected = connection != "given"
        return session

    def with_dialect(self, dialect: AnyDialect, **options: Any) -> "FleetSession":
        """Another session over the same fleet; see `Session.with_dialect`."""
        other = super().with_dialect(dialect, **options)
        assert isinstance(other, FleetSession)
        return other

    def engines(self) -> list[EngineStatus]:
        """Every engine as it is now; may be called from any thread."""
        return self.engine.pool.status()

    async def cancel(self, trace_id: str) -> None:
        """See `Session.cancel`."""
        self.engine.pool.cancel(trace_id)

    async def close(self) -> None:
        """End what runs, the engines, and the connection to Ray if the fleet made it."""
        await super().close()
        if self._connected:
            self._connected = False
            await asyncio.to_thread(disconnect)

    async def _trace(
        self,
        prompt: RenderedPrompt,
        sampling: SamplingParams,
        limits: Limits,
        *,
        id: str | None = None,
        sample: int = 0,
        emit: Callable[[Event], None] | None = None,
        **identity: Any,
    ) -> Trace:
        """Have one trace run."""
        job = TraceJob(
            id=id or uuid.uuid4().hex,
            prompt=prompt,
            sampling=sampling,
            limits=limits,
            sample=sample,
            dialect=type(self.dialect),
            dialect_options=dialects.options_of(self.dialect),
            identity=identity,
        )
        try:
            return await self.engine.pool.run(job, emit)
        except NotRun as ended:
            return self._not_run(job, ended)

    def _not_run(self, job: TraceJob, ended: NotRun) -> Trace:
        """The trace of a prompt that no engine ran to its end."""
        identity = dict(job.identity)
        program = identity.pop("program", None)
        prompt = Span(ids=job.prompt.ids, origin="prompt")
        root = Thread(label="0", spans=[prompt], status=ended.status, stop_reason=ended.reason)
        return Trace(
            id=job.id,
            prompt=job.prompt.text,
            prompt_ids=job.prompt.ids,
            messages=job.prompt.messages,
            sample=job.sample,
            versions=versions(),
            started_at=time.time(),
            threads=[root],
            errors=[ended.reason] if ended.status == "failed" else [],
            ledger=tally([root]),
            **self.circumstances(job.sampling, job.limits, program=program),
            **identity,
        )
