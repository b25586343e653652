"""What runs in an actor: one engine and one session. All threads of a trace stay here, and share its KV."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

from parallel_reason import dialects
from parallel_reason.engines.base import EngineRequest
from parallel_reason.errors import EngineError
from parallel_reason.fleet.messages import EngineFacts, Integrity, SessionOptions, TraceJob, Weights
from parallel_reason.runtime.events import Event
from parallel_reason.runtime.session import Session
from parallel_reason.trace import Trace

BINDING = "VLLM_CPU_OMP_THREADS_BIND"  # vLLM's own choice binds all engines of one machine to the same cores
LOADS_WHEN_IDLE = {"torch"}  # engines whose KV is of no use to other weights; the rest keep their requests


class NotStartedError(EngineError):
    """A call reached a process that Ray started in place of one that ended; to its caller it is gone all the same."""


class EngineWorker:
    """An engine that Ray restarts when its process ends. Its calls run on one event loop.

    A process whose engine died has no use any more, but Ray would not know: it ends itself then, and every call that it
    had fails as if it was killed.
    """

    def __init__(self) -> None:
        """Nothing is loaded yet; Ray calls this again at every restart."""
        self._session: Session | None = None
        self._dialects: dict[str, Session] = {}
        self._running = 0
        self._idle = asyncio.Event()
        self._open = asyncio.Event()  # not while an engine loads that can do so only when it is idle
        self._changing = asyncio.Lock()
        self._idle.set()
        self._open.set()

    async def hello(self) -> tuple[str, int]:
        """The node and the process in which it runs now."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    async def start(self, given: SessionOptions, weights: Weights | None, cores: tuple[int, ...] = ()) -> EngineFacts:
        """Load the model, then the weights that the fleet has by now; what an earlier start left here is ended.

        Args:
            weights: None for the model's own.
            cores: to which the engine is kept; all if empty.

        Raises:
            InputError, ModelError, EngineError: of `Session.start`, and of the weights.
        """
        if self._session is not None:  # the connection to this process was lost, not the process
            await self._session.close()
        if cores:
            os.sched_setaffinity(0, cores)
            os.environ[BINDING] = ",".join(map(str, cores))
        else:
            os.environ.setdefault(BINDING, "nobind")
        self._session = session = await Session.start(given.model, traces_at_once=1 << 20, **given.options)
        self._dialects = {_key(type(session.dialect), dialects.options_of(session.dialect)): session}
        if weights is not None:
            await self.update_weights(weights)
        engine = session.engine
        return EngineFacts(
            name=engine.name,
            model=engine.model,
            tokenizer=engine.tokenizer,
            context=engine.context,
            vocabulary=engine.vocabulary,
            eos_ids=engine.eos_ids,
            precision=engine.precision,
            capabilities=engine.capabilities,
            blocks=engine.admission.blocks,
            block_size=engine.admission.block_size,
            dialect=type(session.dialect),
            dialect_options=dialects.options_of(session.dialect),
        )

    async def run(self, job: TraceJob) -> Trace:
        """Run a trace to its end."""
        return await self._run(job)

    async def stream(self, job: TraceJob) -> AsyncIterator[Event | Trace]:
        """The events of a trace as they come, and then the trace."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        running = asyncio.ensure_future(self._run(job, emit=events.put_nowait))
        running.add_done_callback(lambda _: events.put_nowait(None))
        while (event := await events.get()) is not None:
            yield event
        yield await running

    async def cancel(self, trace_id: str) -> None:
        """Stop a trace; it ends with status ``cancelled``."""
        for session in self._dialects.values():
            await session.cancel(trace_id)

    async def score(self, ids: list[int]) -> list[float]:
        """See `Session.score`."""
        return await self._started.score(ids)

    async def update_weights(self, weights: Weights) -> None:
        """Go on with other weights; requests keep what they have, or are finished first (`LOADS_WHEN_IDLE`).

        Raises:
            InputError, ModelError, EngineError: they cannot be loaded.
        """
        async with self._changing:
            if self._started.engine.name in LOADS_WHEN_IDLE:
                self._open.clear()
            try:
                if not self._open.is_set():
                    await self._idle.wait()
                await self._started.update_weights(weights.folder)
                self._started.engine.policy_version = weights.version
            finally:
                self._open.set()

    async def check(self) -> None:
        """Answer if the engine does: a request of one token where it is idle, else a question that waits for none.

        The process ends if its engine is dead.
        """
        session = self._started
        if self._changing.locked():
            return
        async with self._changing:
            if self._running:
                await self._end_if_dead(session.kv_is_free())
            else:
                await self._end_if_dead(self._one_token())

    async def integrity(self) -> Integrity:
        """What an engine that is idle still holds."""
        import psutil

        process = psutil.Process()
        memory = [each.memory_info().rss for each in (process, *process.children(recursive=True))]
        return Integrity(await self._started.kv_is_free(), sum(memory))

    async def kv_is_free(self) -> bool:
        """See `Session.kv_is_free`."""
        return await self._started.kv_is_free()

    async def close(self) -> None:
        """Shut the engine down."""
        if self._session is not None:
            await self._session.close()

    @property
    def _started(self) -> Session:
        if self._session is None:
            raise NotStartedError("the process was restarted, and its engine is not started yet")
        return self._session

    async def _run(self, job: TraceJob, **emit: Any) -> Trace:
        await self._open.wait()
        self._running += 1
        self._idle.clear()
        try:
            trace = await self._in_dialect(job).run_rendered(
                job.prompt, job.sampling, job.limits, id=job.id, sample=job.sample, **emit, **job.identity
            )
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
        if trace.errors:
            await self._end_if_dead(self._one_token())
        return trace

    def _in_dialect(self, job: TraceJob) -> Session:
        key = _key(job.dialect, job.dialect_options)
        if key not in self._dialects:
            self._dialects[key] = self._started.with_dialect(job.dialect, **job.dialect_options)
        return self._dialects[key]

    async def _one_token(self) -> None:
        request = EngineRequest(f"check/{uuid.uuid4().hex}", [0], max_tokens=1)
        await self._started.engine.generate(request)

    async def _end_if_dead(self, asking: Any) -> None:
        try:
            await asking
        except EngineError:  # the engine is dead, and it alone says so
            os._exit(1)


def _key(dialect: Any, options: dict[str, Any]) -> str:
    return f"{dialect!r} {sorted(options.items())!r}"
