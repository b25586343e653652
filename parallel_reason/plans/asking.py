"""How plans ask a model: ``async ask(prompt) -> str``, and a stream of what it writes for planners.

Any such function will do. `Asker` is one over a `Session`, a `ParallelLLM` or whatever streams the same events.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from parallel_reason.engines.base import Engine
from parallel_reason.errors import EngineError
from parallel_reason.plans.streams import closing
from parallel_reason.runtime.arguments import AnyLimits, AnySampling
from parallel_reason.runtime.events import Event, TokensSampled, TraceFinished
from parallel_reason.trace import Trace

Messages = list[dict[str, Any]]
Ask = Callable[[str | Messages], Awaitable[str] | AsyncIterator[str]]
ROOT = "0"


class Streams(Protocol):
    """What streams one trace: a `Session` or a `ParallelLLM`."""

    @property
    def engine(self) -> Engine:
        """What decodes; knows the ends of text."""
        ...

    def stream(
        self, problem: Any, sampling: AnySampling | None = None, limits: AnyLimits | None = None, /, **options: Any
    ) -> AsyncIterator[Event]:
        """See `Session.stream`."""
        ...


class Asker:
    """Asks a model; every question is a trace of its own, so its threads fork as its dialect says.

    Attributes:
        traces: of all questions that were answered, as they ended.
    """

    def __init__(
        self, llm: Streams, sampling: AnySampling | None = None, limits: AnyLimits | None = None, **options: Any
    ) -> None:
        """Over a model that is there.

        Args:
            options: ``prompt`` and ``chat``, as of `Session.stream`.
        """
        self.traces: list[Trace] = []
        self._llm = llm
        self._sampling = sampling
        self._limits = limits
        self._options = options

    async def __call__(self, prompt: str | Messages) -> str:
        """The answer: what the dialect says is one, or else all that the root wrote.

        Raises:
            EngineError: the trace failed or was cancelled.
        """
        async for event in self._events(prompt):
            if isinstance(event, TraceFinished):
                return event.trace.text if event.trace.answer is None else event.trace.answer
        raise EngineError("the stream of the model ended without a trace")

    async def stream(self, prompt: str | Messages) -> AsyncIterator[str]:
        """What the root writes, piece by piece. Leaving it early cancels the trace."""
        async with closing(self._events(prompt)) as events:
            async for event in events:
                if isinstance(event, TokensSampled) and event.label == ROOT:
                    yield self._without_end(event)

    def _without_end(self, event: TokensSampled) -> str:
        """The text of an event without the end of text of the model, as `Trace.text` has it."""
        engine = self._llm.engine
        if not event.ids or event.ids[-1] not in engine.eos_ids:
            return event.text
        return event.text.removesuffix(engine.tokenizer.decode([event.ids[-1]]))

    async def _events(self, prompt: str | Messages) -> AsyncIterator[Event]:
        async with closing(self._llm.stream(prompt, self._sampling, self._limits, **self._options)) as events:
            async for event in events:
                if isinstance(event, TraceFinished):
                    self.traces.append(event.trace)
                    if event.trace.status in ("failed", "cancelled"):
                        raise EngineError(f"the model's trace {event.trace.status}: {event.trace.stop_reason}")
                yield event


async def written(ask: Ask, prompt: str | Messages) -> AsyncIterator[str]:
    """What ``ask`` answers, piece by piece if it has a ``stream`` or gives an async iterator itself."""
    reply = (getattr(ask, "stream", None) or ask)(prompt)
    if isinstance(reply, AsyncIterator):
        async with closing(reply) as pieces:
            async for piece in pieces:
                yield piece
    else:
        yield await reply


async def answered(ask: Ask, prompt: str | Messages) -> str:
    """What ``ask`` answers, as a whole."""
    reply = ask(prompt)
    return "".join([piece async for piece in reply]) if isinstance(reply, AsyncIterator) else await reply
