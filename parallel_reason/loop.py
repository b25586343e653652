"""The event loop of a `ParallelLLM`, in a thread of its own."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from parallel_reason.errors import EngineError, InputError

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines for callers on other threads, whether these have an event loop of their own or not."""

    def __init__(self) -> None:
        """Start the thread; it does not keep the process alive."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="parallel-reason", daemon=True)
        self._thread.start()
        self._process = os.getpid()
        self._ended = False

    @property
    def runs(self) -> bool:
        """Whether it takes work: not after its end, and not in a process that was forked off."""
        return not self._ended and self._process == os.getpid()

    def refuse_waiting(self) -> None:
        """Raise InputError on the loop's own thread, where waiting for it would never end."""
        if threading.current_thread() is self._thread:
            raise InputError(
                "this call would wait for itself: it was made on the engine's own thread, from inside on_trace; make "
                "it after generate has returned"
            )

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin to run a coroutine.

        Raises:
            EngineError: the loop has ended, or belongs to another process.
        """
        if self.runs:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        if self._ended:
            raise EngineError("this ParallelLLM was closed; make another one")
        raise EngineError(f"this ParallelLLM belongs to process {self._process}; make one in process {os.getpid()}")

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; Ctrl-C cancels it.

        Raises:
            InputError, EngineError: as `refuse_waiting` and `submit`; or the coroutine was cancelled.
        """
        try:
            self.refuse_waiting()
        except InputError:
            work.close()
            raise
        return self.result(self.submit(work))

    def result(self, future: Future[T]) -> T:
        """Wait for what `submit` gave."""
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
        except CancelledError:
            raise EngineError("the session was closed while this call ran") from None

    def end(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """End the loop and its thread, after a last coroutine and once what was cancelled has ended.

        On its own thread, where garbage may be collected, without waiting.
        """
        self._ended = True
        ending = asyncio.run_coroutine_threadsafe(_finish(last), self._loop)
        ending.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        if threading.current_thread() is self._thread:
            return
        error = ending.exception()
        self._thread.join()
        self._loop.close()
        if error is not None:
            raise error


async def _finish(last: Coroutine[Any, Any, None] | None) -> None:
    """Run a last coroutine, then wait until no other task is left on this event loop."""
    try:
        if last is not None:
            await last
    finally:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=1)
            for task in others:
                task.cancel()
