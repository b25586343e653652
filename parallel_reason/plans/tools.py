"""One call of a tool, plain or async, run so that nothing it does can hold the plan up."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from parallel_reason.plans.result import Outcome

REASON_LIMIT = 500  # characters of a reason
GRACE_S = 1.0  # that a cancelled call has to clean up


async def outcome_of(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], deadline_s: float | None
) -> Outcome:
    """Call a function and wait for it, at most ``deadline_s``. Nothing it raises comes out of here.

    A function that returns an exception has failed. One that is over its deadline is cancelled if it is async, and has
    `GRACE_S` to clean up; if it is not async it is left behind in its thread.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    work = asyncio.ensure_future(_called(function, args, kwargs))
    try:
        await asyncio.wait([work], timeout=deadline_s)
    finally:
        late = not work.done()
        if late:
            work.cancel()
            await asyncio.wait([work], timeout=GRACE_S)
    ran = partial(Outcome, started_s=started, ended_s=clock())
    if late:
        return ran("failed", f"deadline_s={deadline_s:g}")
    if work.cancelled():
        return ran("failed", "it cancelled itself")
    error = work.exception()
    value = work.result() if error is None else error
    return ran("failed", described(value)) if isinstance(value, BaseException) else ran("finished", value=value)


def described(error: BaseException) -> str:
    """An error in one line, of any class."""
    try:
        message = str(error).strip()
    except Exception:  # the class is the caller's: its own text may fail
        message = ""
    kind = type(error).__name__
    return f"{kind}: {message.splitlines()[0]}"[:REASON_LIMIT] if message else kind


async def _called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A value, or what was raised as a value if a task must not raise it."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        value = function(*args, **kwargs)
    else:
        value = await _in_thread(partial(function, *args, **kwargs))
    try:
        return await value if inspect.isawaitable(value) else value
    except (KeyboardInterrupt, SystemExit) as error:  # asyncio would end the whole loop
        return error


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Run plain code in a thread of its own: if it hangs, neither other calls nor the end of the process wait."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def settle(value: Any) -> None:
        if not ended.done():
            ended.set_result(value)

    def run() -> None:
        try:
            value = context.run(work)
        except BaseException as error:  # given to the loop, whatever it is
            value = error
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, value)

    threading.Thread(target=run, name="plan call", daemon=True).start()
    return await ended
