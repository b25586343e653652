"""KV blocks of one engine: how many each trace holds, and which requests wait for some.

A request that finds no room waits; so a burst of forks queues, where an engine that took them all at once would preempt
and compute the same tokens again and again. Requests of the oldest trace go first: it is the nearest to its end, where
it gives back all it holds. When nothing runs the first one is let in whatever it needs, and the engine says if that is
too much.
"""

import asyncio
import heapq
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parallel_reason.line import Line

FIRST_GROWTH = 256.0  # tokens that a request is expected to sample, before any has ended
SMOOTHING = 1 / 32  # weight of the newest request in the mean


class Memory:
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
        self._waiting: list[tuple[int, int, int, Share, asyncio.Future[bool]]] = []
        self._tickets = itertools.count()

    def size(self, tokens: int, shared: int = 0) -> int:
        """Blocks of a sequence, without the full blocks of its first ``shared`` tokens, which another one holds."""
        return -(-tokens // self.block_size) - shared // self.block_size

    def growth(self, depth: int, most: int) -> int:
        """How many tokens a request is counted with that may sample ``most``: twice the mean of late at its depth."""
        return min(most, round(2 * self._means[depth])) if self.preempts else most

    def learn(self, depth: int, sampled: int) -> None:
        """A request of a thread has ended."""
        self._means[depth] += SMOOTHING * (sampled - self._means[depth])

    def ask(self, share: "Share", blocks: int) -> "asyncio.Future[bool]":
        """Blocks for one more request; the future is True when it has them. Whoever sets it to False gives up."""
        room: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (share.age, next(self._tickets), blocks, share, room))
        self.admit()
        return room

    def admit(self) -> None:
        """Let in all for whom there is room, in order."""
        while self._waiting:
            *_, blocks, share, room = self._waiting[0]
            full = self.blocks is not None and self.held + blocks > self.blocks
            if full and self.running and not room.done():
                return
            heapq.heappop(self._waiting)
            if not room.done():
                share.begin(blocks)
                room.set_result(True)


class Share:
    """What one trace holds.

    Attributes:
        age: the lower, the sooner its requests are let in.
        most: the most blocks it held at once.
    """

    def __init__(self, memory: Memory, age: int) -> None:
        """Nothing yet."""
        self.memory = memory
        self.age = age
        self.held = 0
        self.running = 0
        self.most = 0

    @asynccontextmanager
    async def room(self, line: "Line", tokens: int) -> AsyncIterator[bool]:
        """Wait for blocks for a request that may sample ``tokens``, and run it; False if it was refused before.

        A thread holds the blocks of what it sees until `give_back`: its children share them, or a join will.
        """
        size = self.memory.size(len(line.context) + self.memory.growth(line.depth, tokens), line.shared)
        more = max(0, size - line.blocks)
        line.room = self.memory.ask(self, more)
        try:
            granted = await line.room  # if the task is cancelled here, the whole trace is, and `close` gives back all
        finally:
            line.room = None
        try:
            yield granted
        finally:
            if granted:
                before = line.blocks + more + line.borrowed
                line.blocks, line.borrowed = self.memory.size(len(line.context), line.shared), 0
                self.running -= 1
                self.memory.running -= 1
                self._hold(line.blocks - before)
                self.memory.admit()

    def refuse(self, line: "Line") -> None:
        """If it waits for room, it shall not."""
        if line.room is not None and not line.room.done():
            line.room.set_result(False)

    def give_back(self, line: "Line") -> None:
        """Nobody needs any more what a thread held."""
        freed, line.blocks, line.borrowed = line.blocks + line.borrowed, 0, 0
        self._hold(-freed)
        self.memory.admit()

    def begin(self, blocks: int) -> None:
        """One more request runs, with more blocks."""
        self.running += 1
        self.memory.running += 1
        self._hold(blocks)

    def close(self) -> None:
        """Give back everything, what was promised to requests that never ran too."""
        self.memory.running -= self.running
        self.running = 0
        self._hold(-self.held)
        self.memory.admit()

    def _hold(self, blocks: int) -> None:
        self.held += blocks
        self.memory.held += blocks
        self.most = max(self.most, self.held)
