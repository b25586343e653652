"""References to KV sources: a pin stays in vLLM's scheduler as long as anything here refers to its source.

The scheduler may give up a pin when memory runs out, and does so on a reset of its cache: a `KVSource` has what it
takes to compute it again. So a lost pin costs time, and never gives wrong KV.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from parallel_reason.engines.vllm.graft.kv_sources import KVSource
from parallel_reason.engines.vllm.graft.messages import ReleasePins

Send = Callable[[ReleasePins], Awaitable[None]]


class KVReferences:
    """Counts references to every source; those that drop to none in one turn of the loop are released together."""

    def __init__(self, send: Send) -> None:
        """``send`` brings a message to the scheduler's connector, in order with the requests."""
        self._send = send
        self._referenced: set[KVSource] = set()
        self._unreferenced: dict[str, KVSource] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many sources are referred to."""
        return len(self._referenced)

    def hold(self, source: KVSource) -> None:
        """Add a reference."""
        source.references += 1
        self._referenced.add(source)

    def drop(self, source: KVSource) -> None:
        """Take one away."""
        source.references -= 1
        if source.references == 0:
            self._referenced.discard(source)
            self.release_unless_held(source)

    def drop_threadsafe(self, source: KVSource) -> None:
        """Take one away, from any thread that collects garbage."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the engine with it
            self._loop.call_soon_threadsafe(self.drop, source)

    def release_unless_held(self, source: KVSource) -> None:
        """Release its pin at the end of this turn of the loop, unless there is a reference by then."""
        if not self._unreferenced:
            self._loop.call_soon(self._release)
        self._unreferenced[source.name] = source

    def _release(self) -> None:
        names = [name for name, source in self._unreferenced.items() if source.references == 0]
        self._unreferenced = {}
        if names:
            task = asyncio.ensure_future(self._send(ReleasePins(names=names)))
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()  # an engine that died has no pins left

    async def flush(self) -> None:
        """Return when the release of all that was dropped has been sent."""
        while self._unreferenced or self._sending:
            await asyncio.gather(*self._sending, return_exceptions=True)
            await asyncio.sleep(0)
