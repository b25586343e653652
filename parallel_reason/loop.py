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

    @property
    def here(self) -> bool:
        """Whether the caller is on the loop's own thread, where waiting for it would never end."""
        return threading.current_thread() is self._thread

    @property
    def of_this_process(self) -> bool:
        """Whether the thread runs in this process; a process that was forked off has none of it."""
        return self._process == os.getpid()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin to run a coroutine.

        Raises:
            EngineError: the loop was stopped, or belongs to another process.
        """
        refusal = None
        if self._loop.is_closed():
            refusal = "this ParallelLLM was closed; make another one"
        elif not self.of_this_process:
            refusal = f"this ParallelLLM belongs to process {self._process}; make one in process {os.getpid()}"
        if refusal:
            work.close()
            raise EngineError(refusal)
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; Ctrl-C cancels it.

        Raises:
            InputError: called on the loop's own thread.
            EngineError: as `submit`; or the coroutine was cancelled.
        """
        if self.here:
            work.close()
            raise InputError(
                "this call would wait for itself: it was made on the engine's own thread, from inside on_trace; make "
                "it after generate has returned"
            )
        future = self.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
        except CancelledError:
            raise EngineError("the session was closed while this call ran") from None

    def stop(self) -> None:
        """End the loop and its thread, once what was cancelled has ended."""
        asyncio.run_coroutine_threadsafe(_others_ended(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _others_ended() -> None:
    """Wait until no other task is left on this event loop."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=1)
        for task in others:
            task.cancel()
