"""`ParallelLLM`: a model that thinks in threads, behind one call.

The engine lives on an event loop in a thread of its own, so the same object serves plain code, notebooks and asyncio
programs, and traces from all of them share one continuous batch.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar, overload

from parallel_reason import dialects
from parallel_reason.controller import Run
from parallel_reason.engines import start
from parallel_reason.errors import InputError
from parallel_reason.events import Event, Finished
from parallel_reason.limits import Limits
from parallel_reason.prompts import Prompt, encode
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

T = TypeVar("T")
OnTrace = Callable[[int, Trace], None]


class ParallelLLM:
    """A loaded model, a dialect and default limits.

    ``close`` it, or use it as a context manager, to shut the engine down.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        dialect: str = "spawn_join",
        dialect_options: dict[str, Any] | None = None,
        engine: str = "vllm",
        limits: Limits | None = None,
        traces_at_once: int = 256,
        **engine_options: Any,
    ) -> None:
        """Load a model.

        Args:
            model: a folder in Hugging Face layout, or a Hub id; the embedded Countdown model if None.
            dialect: the grammar in which the model forks and joins.
            dialect_options: settings of the dialect, such as ``{"join_on": "first"}``.
            engine: what decodes.
            limits: bounds of every trace, unless a call gives its own.
            traces_at_once: traces in flight; more of them queue.
            engine_options: passed to the engine's ``start``, such as ``context=4096``.

        Raises:
            ModelError, InputError, EngineError: naming what is wrong and the fix.
        """
        dialects.find(dialect)
        if engine == "vllm" and dialects.grafts(dialect, **(dialect_options or {})):
            engine_options.setdefault("graft", True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="parallel-reason", daemon=True)
        self._thread.start()
        self._closed = False
        self._work: set[asyncio.Task[Any] | None] = set()
        try:
            self.engine = self._submit(start(engine, model, **engine_options)).result()
            self.dialect = dialects.bind(dialect, self.engine.tokenizer, **(dialect_options or {}))
            if self.dialect.join_rule == "graft" and not self.engine.capabilities.graft:
                raise InputError(
                    f"dialect {dialect!r} joins by graft, which engine {engine!r} cannot do; use engine='torch'"
                )
        except BaseException:
            self.close()
            raise
        self.limits = limits or Limits()
        self._slots = asyncio.Semaphore(traces_at_once)

    @overload
    def generate(self, prompts: Prompt) -> Trace: ...
    @overload
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | None = None,
        limits: Limits | None = None,
        on_trace: OnTrace | None = None,
    ) -> Any: ...
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | None = None,
        limits: Limits | None = None,
        on_trace: OnTrace | None = None,
    ) -> Any:
        """Run prompts to the end, all at once.

        Args:
            prompts: a text, token ids, or chat messages; or a list of these.
            sampling: greedy if None.
            limits: bounds of each trace; those of the constructor if None.
            on_trace: called from the engine's thread with a trace's index and the trace, as soon as it is finished.

        Returns:
            A Trace for one prompt; for a list, or for ``n`` above 1, a list of Trace: the samples of the first prompt,
            then those of the second, and so on.

        Raises:
            InputError: a prompt that is empty, too long, or not in the model's vocabulary. No trace was started.
        """
        future = self._submit(self._generate(prompts, sampling, limits, on_trace))
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    async def agenerate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | None = None,
        limits: Limits | None = None,
        on_trace: OnTrace | None = None,
    ) -> Any:
        """`generate` for asyncio programs; cancelling it frees all it holds."""
        return await asyncio.wrap_future(self._submit(self._generate(prompts, sampling, limits, on_trace)))

    async def stream(
        self, prompt: Prompt, sampling: SamplingParams | None = None, limits: Limits | None = None
    ) -> AsyncIterator[Event]:
        """One prompt, event by event; the last is `Finished` with the trace. Leaving the loop early cancels the run.

        Raises:
            InputError: as `generate`, and for ``n`` above 1.
        """
        if sampling and sampling.n != 1:
            raise InputError(f"stream runs one trace, but n={sampling.n}")
        caller = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def emit(event: Event) -> None:
            caller.call_soon_threadsafe(events.put_nowait, event)

        run = asyncio.wrap_future(self._submit(self._stream(prompt, sampling, limits, emit)))
        try:
            while True:
                coming = asyncio.ensure_future(events.get())
                both: set[asyncio.Future[Any]] = {coming, run}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if run.done() and run.exception() is not None:
                    coming.cancel()
                    run.result()
                yield (event := await coming)
                if isinstance(event, Finished):
                    return
        finally:
            run.cancel()

    def close(self) -> None:
        """Shut the engine down; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._submit(self._shut_down()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "ParallelLLM":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams | None,
        limits: Limits | None,
        on_trace: OnTrace | None,
    ) -> Any:
        sampling, limits = sampling or SamplingParams(), limits or self.limits
        many = isinstance(prompts, list) and (not prompts or isinstance(prompts[0], str | list))
        batch: list[Any] = prompts if many else [prompts]  # type: ignore[assignment]
        encoded = [encode(prompt, self.engine, limits) for prompt in batch]

        async def one(index: int) -> Trace:
            prompt, sample = divmod(index, sampling.n)
            async with self._slots:
                trace = await Run(self.engine, self.dialect, sampling, limits, sample).trace(*encoded[prompt])
            if on_trace is not None:
                on_trace(index, trace)
            return trace

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(index)) for index in range(len(encoded) * sampling.n)]
        traces = [task.result() for task in tasks]
        return traces if many or sampling.n > 1 else traces[0]

    async def _stream(
        self, prompt: Prompt, sampling: SamplingParams | None, limits: Limits | None, emit: Callable[[Event], None]
    ) -> None:
        sampling, limits = sampling or SamplingParams(), limits or self.limits
        encoded = encode(prompt, self.engine, limits)
        async with self._slots:
            await Run(self.engine, self.dialect, sampling, limits, emit=emit).trace(*encoded)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the engine, such as ``llm.engine.score(ids)``, on the engine's own loop."""
        return self._submit(work).result()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)

    async def _tracked(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        self._work.add(task)
        try:
            return await work
        finally:
            self._work.discard(task)

    async def _shut_down(self) -> None:
        """Cancel what still runs, which frees its KV, and then the engine."""
        running = self._work - {asyncio.current_task()}
        for task in running:
            task.cancel()  # type: ignore[union-attr]
        await asyncio.gather(*running, return_exceptions=True)  # type: ignore[arg-type]
        if hasattr(self, "engine"):
            await self.engine.close()


def generate(
    prompts: Prompt | Sequence[Prompt],
    sampling: SamplingParams | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Any:
    """Load a model, run prompts and shut down, in one call; ``options`` are those of `ParallelLLM`."""
    with ParallelLLM(**options) as llm:
        return llm.generate(prompts, sampling, limits)
