"""The threads of one trace as spans of inspect-ai's log, while they run."""

import asyncio
import contextvars
from types import TracebackType
from typing import Any

from inspect_ai.log import transcript
from inspect_ai.util import span

from parallel_reason.runtime.events import Event, ForkJoined, ThreadEnded, ThreadStarted, TokensSampled

SOURCE = "parallel_reason"


class ThreadSpans:
    """Opens a span for each thread when it starts, within its parent's, and closes it when it ends.

    A span of inspect is a context manager, whose parent is that of the running context: each is held open by a task of
    its own, which runs in its parent's context.
    """

    def __init__(self) -> None:
        """No thread has started."""
        self._open: dict[str, _ThreadSpan] = {}

    async def take(self, event: Event) -> None:
        """What happened next in the trace."""
        if isinstance(event, ThreadStarted):
            parent = self._open.get(event.parent) if event.parent is not None else None
            self._open[event.label] = _ThreadSpan(event.label, event.text)
            await self._open[event.label].start(None if parent is None else parent.context)
        elif isinstance(event, TokensSampled):
            self._open[event.label].text.append(event.text)
            self._open[event.label].tokens += len(event.ids)
        elif isinstance(event, ForkJoined):
            self._open[event.label].say({"joined": list(event.children), "text": event.text})
        elif isinstance(event, ThreadEnded):
            self._open[event.label].end(event.status, event.stop_reason)

    async def __aenter__(self) -> "ThreadSpans":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for label in sorted(self._open, reverse=True):  # children before their parents
            await self._open[label].close()


class _ThreadSpan:
    def __init__(self, label: str, header: str) -> None:
        self.text: list[str] = []
        self.tokens = 0
        self.context = contextvars.copy_context()
        self._label = label
        self._header = header
        self._notes: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._opened = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, parent: contextvars.Context | None) -> None:
        """Open it within its parent's, or within the span that is current here."""
        self._task = asyncio.create_task(self._hold(), context=None if parent is None else parent.copy())
        await self._opened.wait()

    def say(self, note: dict[str, Any]) -> None:
        """One more entry within it."""
        self._notes.put_nowait(note)

    def end(self, status: str, reason: str) -> None:
        """The thread has ended; the span closes after what was said of it."""
        text = "".join(self.text)
        self.say({"status": status, "stop_reason": reason, "sampled_tokens": self.tokens, "text": text})
        self._notes.put_nowait(None)

    async def close(self) -> None:
        """Wait for its end; of a thread that was left running, end it."""
        self._notes.put_nowait(None)
        if self._task is not None:
            await self._task

    async def _hold(self) -> None:
        async with span(f"thread {self._label}", type="thread"):
            self.context = contextvars.copy_context()
            transcript().info({"header": self._header}, source=SOURCE)
            self._opened.set()
            while (note := await self._notes.get()) is not None:
                transcript().info(note, source=SOURCE)
