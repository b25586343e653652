"""The events of one trace as an async iterator."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from parallel_reason.runtime.events import Event, TraceFinished
from parallel_reason.trace import Trace


async def event_stream(run: Callable[[Callable[[Event], None]], Awaitable[Trace]]) -> AsyncGenerator[Event]:
    """What a run emits, as it does, and last `TraceFinished`. Leaving the loop early cancels the run.

    Args:
        run: runs the trace; it is given what takes its events.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def finish() -> None:
        try:
            events.put_nowait(TraceFinished(await run(events.put_nowait)))
        finally:
            events.put_nowait(None)

    running = asyncio.ensure_future(finish())
    try:
        while (event := await events.get()) is not None:
            yield event
        await running
    finally:
        running.cancel()
        await asyncio.wait([running])
