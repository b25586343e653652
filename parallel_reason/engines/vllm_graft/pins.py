"""Who holds which KV. A pin lives in vLLM's scheduler as long as anybody here counts on it, and not longer.

The scheduler may take a pin away when memory runs out, and does so on a reset of its cache: `Source` knows how to
compute it again. So a lost pin costs time, and never gives wrong KV.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from parallel_reason.engines.base import KV
from parallel_reason.engines.vllm_graft.facts import Run, Runs, Source, join
from parallel_reason.errors import InputError

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Pins:
    """Counts on every source; tells vLLM of those that nobody counts on any more, all of one moment together."""

    def __init__(self, send: Send) -> None:
        """``send`` brings parameters to the scheduler's connector, in order with the requests."""
        self._send = send
        self._held: set[Source] = set()
        self._unwanted: dict[str, Source] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many sources somebody counts on."""
        return len(self._held)

    def hold(self, source: Source) -> None:
        """Count once more."""
        source.holders += 1
        self._held.add(source)

    def drop(self, source: Source) -> None:
        """Count once less."""
        source.holders -= 1
        if source.holders == 0:
            self._held.discard(source)
            self.forget(source)

    def lose(self, source: Source) -> None:
        """Count once less, from whatever thread collects garbage."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the engine with it
            self._loop.call_soon_threadsafe(self.drop, source)

    def forget(self, source: Source) -> None:
        """Have it released, unless somebody counts on it by then."""
        if not self._unwanted:
            self._loop.call_soon(self._release)
        self._unwanted[source.name] = source

    def _release(self) -> None:
        names = [name for name, source in self._unwanted.items() if source.holders == 0]
        self._unwanted = {}
        if names:
            task = asyncio.ensure_future(self._send({"release": names}))
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()  # an engine that died has no pins left

    async def settle(self) -> None:
        """Return when vLLM has been told of all that was dropped."""
        while self._unwanted or self._sending:
            await asyncio.gather(*self._sending, return_exceptions=True)
            await asyncio.sleep(0)


class Kv:
    """KV of a run of tokens; see `KV` of the engines' protocol."""

    def __init__(self, pins: Pins, source: Source, start: int, stop: int) -> None:
        """Count on ``source``."""
        self.pins = pins
        self._run: Run | None = Run(source, start, stop)
        self._length = stop - start
        pins.hold(source)

    @property
    def run(self) -> Run:
        """Where it lies in its pin.

        Raises:
            InputError: it was released.
        """
        if self._run is None:
            raise InputError("this KV was released; hold it until every request that needs it has begun")
        return self._run

    def __len__(self) -> int:
        """How many tokens."""
        return self._length

    def __getitem__(self, part: slice) -> "Kv":
        """KV of a part of the tokens, to be released on its own."""
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise InputError(f"KV is cut into runs of tokens, not by steps of {step}")
        source, first, _ = self.run
        return Kv(self.pins, source, first + start, first + max(start, stop))

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._run is not None:
            self.pins.drop(self._run.source)
            self._run = None

    def __del__(self) -> None:
        """Give it back if nobody did."""
        if self._run is not None:
            self.pins.lose(self._run.source)


def held_by(pins: Pins, request_id: str, held: tuple[KV, ...], ids: int) -> Runs:
    """Where the KV that a request begins with is pinned.

    Raises:
        InputError: it was released, is another engine's, or has more tokens than the request.
    """
    handles = [kv for kv in held if isinstance(kv, Kv) and kv.pins is pins]
    if len(handles) != len(held):
        raise InputError(f"request {request_id!r} holds KV of another engine; KV can be used by the engine it is from")
    runs = join([(kv.run,) for kv in handles if len(kv)])
    count = sum(map(len, handles))
    if count > ids:
        raise InputError(f"request {request_id!r} holds KV of {count} tokens, but has {ids} ids")
    return runs


def computed(pinned: Runs) -> Runs:
    """Where the tokens that lie in these places were computed."""
    return join([run.source.runs(run.start, run.stop) for run in pinned])
