"""`ParallelLLM`: the blocking face over a `Session`.

The session lives on an event loop in a thread of its own, so the same object serves plain code, notebooks and asyncio
programs, and traces from all of them share one continuous batch.
"""

import asyncio
import atexit
import os
import queue
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar, Unpack

from parallel_reason.dialects import AnyDialect
from parallel_reason.dialects.base import Dialect
from parallel_reason.engines.base import Engine
from parallel_reason.errors import InputError
from parallel_reason.fleet import Fleet
from parallel_reason.loop import BackgroundLoop
from parallel_reason.runtime.arguments import (
    AnyChat,
    AnyLimits,
    AnySampling,
    OnTrace,
    RunOptions,
    StreamOptions,
    sampling_of,
)
from parallel_reason.runtime.events import Event
from parallel_reason.runtime.program import Program
from parallel_reason.runtime.prompts import Prompt, as_prompts
from parallel_reason.runtime.session import Session
from parallel_reason.trace import Message, Trace

T = TypeVar("T")


class ParallelLLM:
    """A loaded model, a dialect and default limits.

    ``close`` it, or use it as a context manager, to shut the engine down; otherwise that happens when nothing refers to
    it any more, or at the end of the program.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        fleet: Fleet | dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Load a model. Ctrl-C gives the start up.

        Args:
            model: a folder in Hugging Face layout, or a Hub id; the embedded Countdown model if None.
            fleet: several engines on Ray in place of one here, such as ``Fleet(engines=4)``.
            options: those of `Session.start`: ``dialect``, ``dialect_options``, ``engine``, ``limits``,
                ``traces_at_once``, and the engine's own, such as ``context=4096``.

        Raises:
            ModelError, InputError, EngineError: naming what is wrong and the fix.
        """
        self._loop = BackgroundLoop()
        self._owner: ParallelLLM | None = None
        try:
            self.session: Session = self._loop.wait(_started(model, fleet, options))
        except BaseException:
            self._loop.end()
            raise
        self._end = weakref.finalize(self, _end, self._loop, self.session)
        self._end.atexit = False  # at exit it must run before the handlers of what the engine imported
        atexit.register(self._end)

    def with_dialect(self, dialect: AnyDialect, **options: Any) -> "ParallelLLM":
        """Another face over the same engine, which is not started again; see `Session.with_dialect`.

        Closing it ends its own calls and leaves the engine; closing this one closes it too.

        Args:
            dialect: a name, a class, or a dialect that is bound to this model's tokenizer; ``none`` is the sequential
                baseline.
            options: settings of the dialect.
        """
        other = ParallelLLM.__new__(ParallelLLM)
        other._loop = self._loop
        other._owner = self  # the engine lives as long as any face over it
        other.session = self.session.with_dialect(dialect, **options)
        return other

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
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        *,
        use_tqdm: bool = False,
        **options: Unpack[RunOptions],
    ) -> list[Trace]:
        """Run prompts to the end; the other arguments, and what is raised, are those of `Session.run`.

        Args:
            use_tqdm: whether to show a progress bar, which counts traces.
            options: ``on_trace`` is called from the engine's thread.
        """
        if not use_tqdm:
            return self._loop.wait(self.session.run(prompts, sampling, limits, **options))
        prompts = as_prompts(prompts)
        total = len(prompts) * sampling_of(sampling).n - len(options.get("skip", ()))
        with _progress_bar(total, options.get("on_trace")) as on_trace:
            options["on_trace"] = on_trace
            return self._loop.wait(self.session.run(prompts, sampling, limits, **options))

    def run(
        self,
        program: Program,
        prompts: Prompt | Sequence[Prompt],
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        **options: Unpack[RunOptions],
    ) -> list[Trace]:
        """Run a program, an async function of a thread, on prompts; see `Session.run_program`.

        It runs on the engine's event loop: what takes long in it, and does not await, stops all traces.
        """
        return self._loop.wait(self.session.run_program(program, prompts, sampling, limits, **options))

    async def arun(
        self,
        program: Program,
        prompts: Prompt | Sequence[Prompt],
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        **options: Unpack[RunOptions],
    ) -> list[Trace]:
        """`run` for asyncio programs and notebooks; cancelling it frees all it holds."""
        work = self.session.run_program(program, prompts, sampling, limits, **options)
        return await asyncio.wrap_future(self._loop.submit(work))

    def ask(self, messages: Prompt, sampling: AnySampling | None = None, *, chat: AnyChat | None = None) -> str:
        """What the model answers to chat messages, or to a text as one message of the user; see `Session.ask`."""
        return self._loop.wait(self.session.ask(messages, sampling, chat=chat))

    def chat(
        self,
        messages: list[Message] | Sequence[list[Message]],
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: dict[str, Any] | None = None,
        use_tqdm: bool = False,
        **options: Unpack[RunOptions],
    ) -> list[Trace]:
        """Answer chat messages; names and meaning are those of vLLM's ``LLM.chat``, the rest as in `generate`.

        Args:
            messages: of one chat, ``[{"role": "user", "content": "..."}]``, or of several.
            chat_template: instead of the model's own.
            add_generation_prompt: write what begins a reply.
            continue_final_message: the last message is the start of a reply, and the model goes on with it; needs
                ``add_generation_prompt=False``.
            chat_template_kwargs: more variables of the template, such as ``{"enable_thinking": False}``.
        """
        chats = as_prompts(messages)
        for one in chats:
            if not isinstance(one, list) or not all(isinstance(message, dict) for message in one):
                raise InputError(f"chat takes lists of messages, not {one!r:.60}; give other prompts to generate")
        options["chat"] = {
            "chat_template": chat_template,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "chat_template_kwargs": chat_template_kwargs or {},
        }
        return self.generate(chats, sampling, limits, use_tqdm=use_tqdm, **options)

    async def agenerate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        **options: Unpack[RunOptions],
    ) -> list[Trace]:
        """`generate` for asyncio programs and notebooks; cancelling it frees all it holds."""
        return await asyncio.wrap_future(self._loop.submit(self.session.run(prompts, sampling, limits, **options)))

    async def stream(
        self,
        problem: Prompt,
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncIterator[Event]:
        """One prompt, event by event; see `Session.stream`. Leaving the loop early cancels the run."""
        caller = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()

        def put(event: Event | None) -> None:
            caller.call_soon_threadsafe(events.put_nowait, event)

        forwarding = asyncio.wrap_future(self._forward(self.session.stream(problem, sampling, limits, **options), put))
        try:
            while (event := await events.get()) is not None:
                yield event
            await forwarding
        finally:
            forwarding.cancel()

    def stream_sync(
        self,
        problem: Prompt,
        sampling: AnySampling | None = None,
        limits: AnyLimits | None = None,
        **options: Unpack[StreamOptions],
    ) -> Iterator[Event]:
        """`stream` for plain code: ``for event in llm.stream_sync(prompt)``."""
        self._loop.refuse_waiting()
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        forwarding = self._forward(self.session.stream(problem, sampling, limits, **options), events.put)
        try:
            while (event := events.get()) is not None:
                yield event
            self._loop.result(forwarding)
        finally:
            forwarding.cancel()

    def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` under the model, each given all ids before it, [tokens - 1]."""
        return self._loop.wait(self.session.score(ids))

    def cancel(self, trace_id: str) -> None:
        """Stop a trace; see `Session.cancel`."""
        self._loop.wait(self.session.cancel(trace_id))

    def update_weights(self, model: str) -> None:
        """Go on with the weights of another folder; see `Session.update_weights`."""
        self._loop.wait(self.session.update_weights(model))

    def kv_is_free(self) -> bool:
        """Whether the engine holds no KV for any request."""
        return self._loop.wait(self.session.kv_is_free())

    def circumstances(
        self, sampling: AnySampling | None = None, limits: AnyLimits | None = None, *, program: Program | None = None
    ) -> dict[str, Any]:
        """What the traces of a call have in common; for `parallel_reason.resume`."""
        return self.session.circumstances(sampling, limits, program=program)

    def run_coroutine(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's event loop, such as one that uses ``llm.session``, and wait for it."""
        return self._loop.wait(work)

    def close(self) -> None:
        """Shut the engine down; a second call does nothing. Calls that are under way raise EngineError.

        A face that `with_dialect` made only ends its own calls.
        """
        self._loop.refuse_waiting()
        if self._owner is None:
            self._end()
            atexit.unregister(self._end)
        elif self._loop.runs:
            self._loop.wait(self.session.close())

    def __enter__(self) -> "ParallelLLM":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _forward(self, events: AsyncIterator[Event], put: Callable[[Event | None], object]) -> Future[None]:
        """Give ``put`` the events of a stream as they come, and None when no more will."""

        async def forward() -> None:
            try:
                async for event in events:
                    put(event)
            finally:
                put(None)

        return self._loop.submit(forward())


async def _started(
    model: str | os.PathLike[str] | None, fleet: Fleet | dict[str, Any] | None, options: dict[str, Any]
) -> Session:
    if fleet is None:
        return await Session.start(model, **options)
    from parallel_reason.fleet.session import FleetSession

    return await FleetSession.start(model, fleet=fleet, **options)


def _end(loop: BackgroundLoop, session: Session) -> None:
    """Close a session and the loop that it lives on."""
    if loop.runs:
        loop.end(session.close())


@contextmanager
def _progress_bar(total: int, on_trace: OnTrace | None) -> Iterator[OnTrace]:
    """A bar on standard error or in a notebook; what is to be called with each trace."""
    from tqdm.auto import tqdm

    with tqdm(total=total, desc="traces", dynamic_ncols=True) as bar:

        def counted(trace: Trace) -> None:
            bar.update()
            if on_trace is not None:
                on_trace(trace)

        yield counted


def generate(
    prompts: Prompt | Sequence[Prompt],
    sampling: AnySampling | None = None,
    limits: AnyLimits | None = None,
    **options: Any,
) -> list[Trace]:
    """Load a model, run prompts and shut down, in one call; ``options`` are those of `ParallelLLM`."""
    with ParallelLLM(**options) as llm:
        return llm.generate(prompts, sampling, limits)
