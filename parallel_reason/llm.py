"""`ParallelLLM`: the blocking face over a `Session`.

The session lives on an event loop in a thread of its own, so the same object serves plain code, notebooks and asyncio
programs, and traces from all of them share one continuous batch.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, TypeVar

from parallel_reason.dialects.base import Dialect
from parallel_reason.engines.base import Engine
from parallel_reason.errors import EngineError, InputError
from parallel_reason.limits import Limits
from parallel_reason.runtime.events import Event
from parallel_reason.runtime.prompts import Prompt
from parallel_reason.runtime.session import OnTrace, Session
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

T = TypeVar("T")


class ParallelLLM:
    """A loaded model, a dialect and default limits.

    ``close`` it, or use it as a context manager, to shut the engine down.
    """

    def __init__(self, model: str | None = None, **options: Any) -> None:
        """Load a model.

        Args:
            model: a folder in Hugging Face layout, or a Hub id; the embedded Countdown model if None.
            options: those of `Session.start`: ``dialect``, ``dialect_options``, ``engine``, ``limits``,
                ``traces_at_once``, and the engine's own, such as ``context=4096``.

        Raises:
            ModelError, InputError, EngineError: naming what is wrong and the fix.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="parallel-reason", daemon=True)
        self._thread.start()
        self._closed = False
        try:
            self.session = self._wait(Session.start(model, **options))
        except BaseException:
            self._stop_loop()
            raise

    @property
    def engine(self) -> Engine:
        """What decodes."""
        return self.session.engine

    @property
    def dialect(self) -> Dialect:
        """The grammar in which the model forks and joins."""
        return self.session.dialect

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.session.engine.tokenizer

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | None = None,
        limits: Limits | None = None,
        *,
        tasks: Sequence[str] | None = None,
        skip: Collection[tuple[str, int]] = (),
        on_trace: OnTrace | None = None,
    ) -> list[Trace]:
        """Run prompts to the end, all at once; see `Session.run`. ``on_trace`` is called from the engine's thread."""
        return self._wait(self.session.run(prompts, sampling, limits, tasks=tasks, skip=skip, on_trace=on_trace))

    async def agenerate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | None = None,
        limits: Limits | None = None,
        *,
        tasks: Sequence[str] | None = None,
        skip: Collection[tuple[str, int]] = (),
        on_trace: OnTrace | None = None,
    ) -> list[Trace]:
        """`generate` for asyncio programs; cancelling it frees all it holds."""
        return await asyncio.wrap_future(
            self._submit(self.session.run(prompts, sampling, limits, tasks=tasks, skip=skip, on_trace=on_trace))
        )

    async def stream(
        self,
        prompt: Prompt,
        sampling: SamplingParams | None = None,
        limits: Limits | None = None,
        *,
        task: str | None = None,
    ) -> AsyncIterator[Event]:
        """One prompt, event by event; see `Session.stream`. Leaving the loop early cancels the run."""
        caller = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()

        async def forward() -> None:
            try:
                async for event in self.session.stream(prompt, sampling, limits, task=task):
                    caller.call_soon_threadsafe(events.put_nowait, event)
            finally:
                caller.call_soon_threadsafe(events.put_nowait, None)

        forwarding = asyncio.wrap_future(self._submit(forward()))
        try:
            while (event := await events.get()) is not None:
                yield event
            await forwarding
        finally:
            forwarding.cancel()

    def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` under the model, each given all ids before it, [tokens - 1]."""
        return self._wait(self.session.score(ids))

    def cancel(self, trace_id: str) -> None:
        """Stop a trace; see `Session.cancel`."""
        self._wait(self.session.cancel(trace_id))

    def update_weights(self, model: str) -> None:
        """Go on with the weights of another folder; see `Session.update_weights`."""
        self._wait(self.session.update_weights(model))

    def kv_is_free(self) -> bool:
        """Whether the engine holds no KV for any request."""
        return self._wait(self.session.kv_is_free())

    def circumstances(self, sampling: SamplingParams | None = None, limits: Limits | None = None) -> dict[str, Any]:
        """What the traces of a call have in common; for `parallel_reason.resume`."""
        return self.session.circumstances(sampling, limits)

    def run_coroutine(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's event loop, such as one that uses ``llm.session``, and wait for it."""
        return self._wait(work)

    def close(self) -> None:
        """Shut the engine down; a second call does nothing. Calls that are under way raise EngineError."""
        self._refuse_own_thread()
        if not self._closed:
            self._closed = True
            asyncio.run_coroutine_threadsafe(self.session.close(), self._loop).result()
            self._stop_loop()

    def __enter__(self) -> "ParallelLLM":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._refuse_own_thread()
        except InputError:
            work.close()
            raise
        future = self._submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
        except CancelledError:
            raise EngineError("the session was closed while this call ran") from None

    def _refuse_own_thread(self) -> None:
        """Raise InputError where waiting would never end."""
        if threading.current_thread() is self._thread:
            raise InputError(
                "this call would wait for itself: it was made on the engine's own thread, from inside on_trace; make "
                "it after generate has returned"
            )

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._closed:
            work.close()
            raise EngineError("this ParallelLLM was closed; make another one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _stop_loop(self) -> None:
        """End the event loop and its thread, once what was cancelled has ended."""
        asyncio.run_coroutine_threadsafe(_others_ended(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _others_ended() -> None:
    """Wait until no other task is left on this event loop."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=1)
        for task in others:
            task.cancel()


def generate(
    prompts: Prompt | Sequence[Prompt],
    sampling: SamplingParams | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> list[Trace]:
    """Load a model, run prompts and shut down, in one call; ``options`` are those of `ParallelLLM`."""
    with ParallelLLM(**options) as llm:
        return llm.generate(prompts, sampling, limits)
