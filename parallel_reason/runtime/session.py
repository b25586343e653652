"""`Session`: the asyncio face. An engine, a dialect and default limits, over which traces run in one batch."""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar, Unpack
from weakref import WeakSet

from parallel_reason import dialects
from parallel_reason.dialects import AnyDialect
from parallel_reason.dialects.base import Dialect
from parallel_reason.engines import early_tokenizer
from parallel_reason.engines import start as start_engine
from parallel_reason.engines.base import Engine
from parallel_reason.engines.checks import check_sampling
from parallel_reason.errors import EngineError, InputError
from parallel_reason.limits import Limits
from parallel_reason.runtime.arguments import (
    AnyChat,
    AnyLimits,
    AnySampling,
    OnTrace,
    RunOptions,
    StreamOptions,
    check_traces_at_once,
    chosen_dialect,
    limits_of,
    limits_of_program,
    sampling_of,
)
from parallel_reason.runtime.event_stream import event_stream
from parallel_reason.runtime.events import Event
from parallel_reason.runtime.finished_trace import finished_trace
from parallel_reason.runtime.program import Program, one_answer, started_by
from parallel_reason.runtime.program_name import check_program, made_by
from parallel_reason.runtime.program_run import ProgramRun
from parallel_reason.runtime.prompts import Prompt, RenderedPrompt, TemplateName, as_prompts, render_all
from parallel_reason.runtime.run import TraceRun
from parallel_reason.runtime.samples import run_samples
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

T = TypeVar("T")


class Session:
    """A loaded model, a dialect and default limits, on one event loop.

    ``close`` it, or use it in ``async with``, to shut the engine down.
    """

    def __init__(
        self, engine: Engine, dialect: Dialect, *, limits: AnyLimits | None = None, traces_at_once: int = 256
    ) -> None:
        """Over an engine and a bound dialect that are there already.

        Args:
            limits: bounds of every trace, unless a call gives its own.
            traces_at_once: traces in flight; more of them wait, and are made when it is their turn.

        Raises:
            InputError: the engine cannot join as the dialect does, or a value that cannot be used.
        """
        check_traces_at_once(traces_at_once)
        if dialect.join_rule == "graft" and not engine.capabilities.graft:
            raise InputError(
                f"dialect {dialect.name!r} joins by graft, which engine {engine.name!r} cannot do as it was started; "
                "start engine 'vllm' with this dialect or with graft=True, or use engine='torch'"
            )
        self.engine = engine
        self.dialect = dialect
        self.limits = limits_of(limits, Limits())
        self._dialect_options = dialects.options_of(dialect)
        self._slots = asyncio.Semaphore(traces_at_once)
        self._runs: dict[str, TraceRun] = {}
        self._calls: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._owns_engine = True
        self._others: WeakSet[Session] = WeakSet()  # over the same engine, of other dialects

    @classmethod
    async def start(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        dialect: AnyDialect | None = None,
        dialect_options: dict[str, Any] | None = None,
        engine: str = "vllm",
        limits: AnyLimits | None = None,
        traces_at_once: int = 256,
        **engine_options: Any,
    ) -> "Session":
        """Load a model. What the arguments or the tokenizer alone can refuse is refused before the engine starts.

        Args:
            model: a folder in Hugging Face layout, or a Hub id; the embedded Countdown model if None.
            dialect: the grammar in which the model forks and joins: a name, a class, or a dialect that is bound to this
                model's tokenizer. ``none`` is the sequential baseline. If None, the one for which the folder was
                prepared, with its options, or else ``spawn_join``.
            dialect_options: settings of the dialect, such as ``{"join_on": "first"}``.
            engine: what decodes: ``vllm``, ``torch`` or ``openai``.
            limits, traces_at_once: as in the constructor.
            engine_options: passed to the engine's ``start``, such as ``context=4096``.

        Raises:
            ModelError, InputError, EngineError: naming what is wrong and the fix.
        """
        folder = None if model is None else os.fspath(model)
        check_traces_at_once(traces_at_once)
        bounds = limits_of(limits, Limits())
        chosen, options = await chosen_dialect(folder, dialect, dialect_options or {}, engine)
        dialects.find(chosen)
        if engine == "vllm" and dialects.grafts(chosen, **options):
            engine_options.setdefault("graft", True)
        tokenizer = await early_tokenizer(engine, folder, **engine_options)
        if tokenizer is not None:
            dialects.bind(chosen, tokenizer, **options)
        started = await start_engine(engine, folder, **engine_options)
        try:
            bound = dialects.bind(chosen, started.tokenizer, **options)
            return cls(started, bound, limits=bounds, traces_at_once=traces_at_once)
        except BaseException:
            await started.close()
            raise

    def with_dialect(self, dialect: AnyDialect, **options: Any) -> "Session":
        """Another session over the same engine, whose model forks and joins in another grammar.

        It has the default limits of this one, and ``traces_at_once`` counts the traces of both. Closing it ends its own
        calls and leaves the engine; closing this one closes it too.

        Args:
            dialect: as in `start`.
            options: settings of the dialect.

        Raises:
            InputError, ModelError: the dialect or an option cannot be used with this model or engine.
            EngineError: this session was closed.
        """
        if self._closed:
            raise EngineError("the session was closed; start another one")
        bound = dialects.bind(dialect, self.engine.tokenizer, **options)
        other = type(self)(self.engine, bound, limits=self.limits)
        other._slots = self._slots
        other._owns_engine = False
        self._others.add(other)
        return other

    async def run(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        *,
        prompt: TemplateName | None = None,
        chat: AnyChat | None = None,
        tasks: Sequence[str] | None = None,
        skip: Collection[tuple[str, int]] = (),
        on_trace: OnTrace | None = None,
    ) -> list[Trace]:
        """Run prompts to the end, ``traces_at_once`` at a time. Cancelling it frees all it holds.

        Args:
            prompts: a text, token ids, or chat messages; or a sequence of these.
            sampling: a record or a dict of its fields; greedy if None.
            limits: bounds of each trace, a record or a dict of its fields; those of the session if None.
            prompt: the name of a prompt of `parallel_reason.prompts`, or the path of a file, into which each of
                ``prompts`` is put as the problem.
            chat: how the model's chat template is applied, a record or a dict of its fields; with it a text is one
                message of the user.
            tasks: the caller's key of each prompt, recorded in its traces, [prompts].
            skip: samples that are not to be run, as ``(task or text of the prompt, sample number)``; what
                `parallel_reason.resume` gives for an earlier run.
            on_trace: called with each trace as soon as it is finished.

        Returns:
            ``sampling.n`` traces of the first prompt, then those of the second, and so on, less those skipped.

        Raises:
            InputError: a prompt that is empty, too long, or not in the model's vocabulary; or another argument that
                cannot be used. No trace was started.
            EngineError: the session was closed.
            CallbackError: ``on_trace`` raised; it has the traces.
        """
        options = RunOptions(prompt=prompt, chat=chat, tasks=tasks, skip=skip, on_trace=on_trace)
        return await self._run(None, prompts, sampling_of(sampling), limits_of(limits, self.limits), options)

    async def run_program(
        self,
        program: Program,
        prompts: Prompt | Sequence[Prompt],
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        **options: Unpack[RunOptions],
    ) -> list[Trace]:
        """Run a program, an async function of a `ProgramThread`, on prompts; the rest is as in `run`.

        Args:
            sampling: of every thread, unless a call of the program gives its own.
            limits: bounds of each trace; ``forks``, ``depth`` and ``children`` are wide where nobody gave them.
        """
        check_program(program, options, RunOptions)
        return await self._run(program, prompts, sampling_of(sampling), self._limits(limits, program), options)

    async def ask(self, messages: Prompt, sampling: AnySampling | None = None, *, chat: AnyChat | None = None) -> str:
        """What the model answers to chat messages, or to a text, as one message of the user; no dialect forks.

        Raises:
            InputError: as `run`.
            EngineError: the engine failed.
        """
        [trace] = await self.run_program(one_answer, [messages], sampling, chat={} if chat is None else chat)
        if trace.status in ("failed", "cancelled"):
            raise EngineError(f"no answer: {trace.stop_reason}")
        return trace.text

    def _limits(self, limits: AnyLimits | None, program: Program | None) -> Limits:
        return (limits_of if program is None else limits_of_program)(limits, self.limits)

    def _dialect_of(self, program: Program | None) -> str:
        """Under which dialect a prompt is read."""
        return self.dialect.name if program is None else "none"

    async def _run(
        self,
        program: Program | None,
        prompts: Prompt | Sequence[Prompt],
        sampling: SamplingParams,
        limits: Limits,
        options: RunOptions,
    ) -> list[Trace]:
        """Run all samples of all prompts, by a program or by the dialect; see `run`."""
        check_sampling(sampling, self.engine)
        template, chat = options.get("prompt"), options.get("chat")
        rendered = render_all(as_prompts(prompts), self.engine, limits, self._dialect_of(program), template, chat)

        def make(number: int, **identity: Any) -> Coroutine[Any, Any, Trace]:
            return self._trace(rendered[number], sampling, limits, program=program, prompt_index=number, **identity)

        return await self._call(run_samples(make, [each.text for each in rendered], sampling.n, self._slots, options))

    async def stream(
        self,
        problem: Prompt,
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        *,
        prompt: TemplateName | None = None,
        chat: AnyChat | None = None,
        task: str | None = None,
        program: Program | None = None,
    ) -> AsyncIterator[Event]:
        """One prompt, event by event; the last is `TraceFinished`. Leaving the loop early cancels the run.

        Args:
            problem: one of the prompts of `run`, whose other arguments these are.
            program: what makes the trace, as in `run_program`; the dialect if None.

        Raises:
            InputError, EngineError: as `run`; and for ``n`` above 1.
        """
        if program is not None:
            check_program(program, (), StreamOptions)
        sampling, limits = sampling_of(sampling), self._limits(limits, program)
        check_sampling(sampling, self.engine)
        if sampling.n != 1:
            raise InputError(f"stream runs one trace, but n={sampling.n}")
        (rendered,) = render_all([problem], self.engine, limits, self._dialect_of(program), prompt, chat)

        async def run(emit: Callable[[Event], None]) -> Trace:
            async with self._slots:
                return await self._trace(rendered, sampling, limits, program=program, task=task, emit=emit)

        async with contextlib.aclosing(event_stream(lambda emit: self._call(run(emit)))) as events:
            async for event in events:
                yield event

    async def run_rendered(
        self, prompt: RenderedPrompt, sampling: SamplingParams, limits: Limits, *, id: str, **options: Any
    ) -> Trace:
        """One trace under a given id, of a prompt that was rendered and checked before; for faces over many sessions.

        Args:
            options: ``sample``, ``emit``, and further fields of `Trace`.
        """
        return await self._call(self._trace(prompt, sampling, limits, id=id, **options))

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` under the model at temperature 1, each given all ids before it, [tokens - 1]."""
        return await self._call(self.engine.score(ids))

    async def cancel(self, trace_id: str) -> None:
        """Stop a trace; it ends with status ``cancelled`` and what it wrote. One that has ended is ignored."""
        if run := self._runs.get(trace_id):
            run.cancel("cancelled by the caller")

    async def update_weights(self, model: str) -> None:
        """Go on with the weights of another folder; traces that run meanwhile go on with the new ones.

        Raises:
            InputError: the engine cannot do it.
            ModelError, EngineError: of the engine.
        """
        if not self.engine.capabilities.update_weights:
            raise InputError(
                f"engine {self.engine.name!r} as it was started cannot change its weights; use engine='vllm', without "
                "a worker_extension_cls of your own"
            )
        await self._call(self.engine.update_weights(model))

    async def kv_is_free(self) -> bool:
        """Whether the engine holds no KV for any request."""
        return await self._call(self.engine.kv_is_free())

    def circumstances(
        self, sampling: AnySampling | None = None, limits: AnyLimits | None = None, *, program: Program | None = None
    ) -> dict[str, Any]:
        """What the traces of a call have in common; for `parallel_reason.resume`."""
        own = {"dialect": self.dialect.name, "dialect_options": self._dialect_options}
        return {
            "model": self.engine.model,
            "engine": self.engine.name,
            **(own if program is None else made_by(program)),
            "sampling": sampling_of(sampling),
            "limits": self._limits(limits, program),
        }

    async def close(self) -> None:
        """Stop what still runs, which frees its KV, and then the engine; a second call does nothing.

        Calls that are under way raise EngineError. Sessions made from this one by `with_dialect` are closed with it; if
        this one was made so, the engine goes on.
        """
        if self._closed:
            return
        self._closed = True
        for other in list(self._others):
            await other.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        if self._owns_engine:
            await self.engine.close()

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _trace(
        self,
        prompt: RenderedPrompt,
        sampling: SamplingParams,
        limits: Limits,
        *,
        id: str | None = None,
        sample: int = 0,
        emit: Callable[[Event], None] | None = None,
        program: Program | None = None,
        **identity: Any,
    ) -> Trace:
        """Run one trace, and record under which circumstances."""
        trace_id, started = id or uuid.uuid4().hex, time.time()
        what = self.engine, self.dialect, sampling, limits
        how: dict[str, Any] = {"id": trace_id, "prompt": prompt.ids, "sample": sample, "emit": emit}
        run = TraceRun(*what, **how) if program is None else ProgramRun(started_by(program), prompt.text, *what, **how)
        self._runs[trace_id] = run
        try:
            result = await run.run()
        finally:
            del self._runs[trace_id]
        fields = {"id": trace_id, "sample": sample, "started_at": started, **identity}
        return finished_trace(prompt, result, **fields, **self.circumstances(sampling, limits, program=program))

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a call's work in a task that `close` can cancel."""
        if self._closed:
            work.close()
            raise EngineError("the session was closed; start another one")
        task = asyncio.ensure_future(work)
        self._calls.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._closed and not (caller and caller.cancelling()):
                raise EngineError("the session was closed while this call ran") from None
            raise
        finally:
            self._calls.discard(task)
