"""Admission of requests to one engine by KV blocks: how many each trace holds, and which requests wait for some.

A request that finds no room waits; so a burst of forks queues, where an engine that took them all at once would preempt
and compute the same tokens again and again. Requests of the oldest trace go first: it is the nearest to its end, where
it gives back all it holds. When nothing runs the first one is admitted whatever it needs, and the engine says if that
is too much.
"""

import asyncio
import heapq
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

FIRST_GROWTH = 256.0  # tokens that a request is expected to sample, before any has ended
SMOOTHING = 1 / 32  # weight of the newest request in the mean


class Admission:
    """Blocks that requests hold or were promised.

    Attributes:
        blocks: how many there are; None if the engine does not tell, and nobody waits.
        block_size: tokens.
        held: by all traces together; ``running`` requests are under way.
    """

    def __init__(self, blocks: int | None, block_size: int, *, preempts: bool = True) -> None:
        """All free. An engine that ``preempts`` goes on when requests sample more than was expected."""
        self.blocks = blocks
        self.block_size = block_size
        self.preempts = preempts
        self.held = 0
        self.running = 0
        self._means: defaultdict[int, float] = defaultdict(lambda: FIRST_GROWTH)
        self._waiting: list[tuple[int, int, int, TraceBlocks, asyncio.Future[bool]]] = []
        self._tickets = itertools.count()

    def size(self, tokens: int, shared: int = 0) -> int:
        """Blocks of a sequence, without the full blocks of its first ``shared`` tokens, which another one holds."""
        return -(-tokens // self.block_size) - shared // self.block_size

    def expected_tokens(self, depth: int, most: int) -> int:
        """How many new tokens to reserve for a request that may sample ``most``: twice the recent mean at its depth."""
        return min(most, round(2 * self._means[depth])) if self.preempts else most

    def observe(self, depth: int, sampled: int) -> None:
        """A request of a thread has ended after so many new tokens."""
        self._means[depth] += SMOOTHING * (sampled - self._means[depth])

    def ask(self, trace: "TraceBlocks", blocks: int) -> "asyncio.Future[bool]":
        """Blocks for one more request; the future is True when it has them. Setting it to False withdraws."""
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (trace.age, next(self._tickets), blocks, trace, granted))
        self.admit()
        return granted

    def admit(self) -> None:
        """Admit all for whom there is room, in order."""
        while self._waiting:
            *_, blocks, trace, granted = self._waiting[0]
            full = self.blocks is not None and self.held + blocks > self.blocks
            if full and self.running and not granted.done():
                return
            heapq.heappop(self._waiting)
            if not granted.done():
                trace.begin(blocks)
                granted.set_result(True)


@dataclass(slots=True)
class ThreadBlocks:
    """What one thread holds.

    Attributes:
        shared: its first tokens, whose full blocks its parent holds.
        blocks: beyond those.
        borrowed: of its children, until the request after a join has taken from them.
        waiting: done when its next request is admitted, or refused.
    """

    shared: int = 0
    blocks: int = 0
    borrowed: int = 0
    waiting: asyncio.Future[bool] | None = None

    def refuse(self) -> None:
        """If it waits for room, it gets none."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(False)


class TraceBlocks:
    """What one trace holds.

    Attributes:
        age: the lower, the sooner its requests are admitted.
        most: the most blocks it held at once.
    """

    def __init__(self, admission: Admission, age: int) -> None:
        """Nothing yet."""
        self.admission = admission
        self.age = age
        self.held = 0
        self.running = 0
        self.most = 0

    @asynccontextmanager
    async def admitted(self, thread: ThreadBlocks, context: int, new: int) -> AsyncIterator["Admitted"]:
        """Wait for blocks for a request, and run it.

        A thread holds the blocks of what it sees until `give_back`: its children share them, or a join will.

        Args:
            context: tokens that it begins with.
            new: tokens that it is expected to sample.
        """
        more = max(0, self.admission.size(context + new, thread.shared) - thread.blocks)
        thread.waiting = self.admission.ask(self, more)
        try:
            granted = await thread.waiting  # if the task is cancelled here, so is the trace, and `close` frees all
        finally:
            thread.waiting = None
        admitted = Admitted(granted, context)
        try:
            yield admitted
        finally:
            if granted:
                before = thread.blocks + more + thread.borrowed
                thread.blocks, thread.borrowed = self.admission.size(admitted.context, thread.shared), 0
                self.running -= 1
                self.admission.running -= 1
                self._hold(thread.blocks - before)
                self.admission.admit()

    def give_back(self, thread: ThreadBlocks) -> None:
        """Nobody needs any more what a thread held."""
        freed, thread.blocks, thread.borrowed = thread.blocks + thread.borrowed, 0, 0
        self._hold(-freed)
        self.admission.admit()

    def begin(self, blocks: int) -> None:
        """One more request runs, with more blocks."""
        self.running += 1
        self.admission.running += 1
        self._hold(blocks)

    def close(self) -> None:
        """Give back everything, including what was promised to requests that never ran."""
        self.admission.running -= self.running
        self.running = 0
        self._hold(-self.held)
        self.admission.admit()

    def _hold(self, blocks: int) -> None:
        self.held += blocks
        self.admission.held += blocks
        self.most = max(self.most, self.held)


@dataclass(slots=True)
class Admitted:
    """A request that may run.

    Attributes:
        granted: whether it has room; False if it was refused.
        context: tokens that the thread sees, kept up to date while it runs.
    """

    granted: bool
    context: int
