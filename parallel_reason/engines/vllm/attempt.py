"""A start of vLLM that can be given up while it runs."""

import asyncio
import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from parallel_reason.errors import EngineError

KILL_EVERY_S = 0.1  # while a start that was given up ends
_one_at_a_time = threading.Lock()
T = TypeVar("T")


async def in_thread(start: Callable[[], T]) -> T:
    """Start vLLM in a thread of its own, so that the event loop runs on; one start at a time.

    If this is cancelled, the processes that were started are killed, which ends the start. What it returned all the
    same is dropped: vLLM shuts down an ``AsyncLLM`` that nobody refers to.
    """
    attempt = _Attempt(start)
    running = asyncio.ensure_future(asyncio.to_thread(attempt.run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            attempt.give_up()
            await asyncio.wait([running], timeout=KILL_EVERY_S)
        running.exception()
        raise


class _Attempt(Generic[T]):
    """One start, which can be given up from another thread."""

    def __init__(self, start: Callable[[], T]) -> None:
        self._start = start
        self._others: set[BaseProcess] | None = None  # processes that were there before; None while it does not run
        self._given_up = False

    def run(self) -> T:
        with _one_at_a_time:
            if self._given_up:
                raise EngineError("the start was given up")
            self._others = set(multiprocessing.active_children())
            try:
                return self._start()
            finally:
                self._others = None

    def give_up(self) -> None:
        """Kill what was started so far."""
        self._given_up = True
        others = self._others
        if others is not None:
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
