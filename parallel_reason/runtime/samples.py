"""All samples of the prompts of one call, so many at a time."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from parallel_reason.errors import CallbackError, InputError
from parallel_reason.runtime.arguments import RunOptions
from parallel_reason.trace import Trace

T = TypeVar("T")


async def run_samples(
    make: Callable[..., Coroutine[Any, Any, Trace]],
    prompts: list[str],
    samples: int,
    slots: asyncio.Semaphore,
    options: RunOptions,
) -> list[Trace]:
    """``samples`` traces of the first prompt, then those of the second, and so on, less those skipped.

    Args:
        make: makes one, of a prompt by its number, with the trace's ``task``, ``sample`` and ``group``.
        prompts: the text of each.
        slots: how many run at once.
        options: ``tasks``, ``skip`` and ``on_trace`` of `Session.run`.

    Raises:
        InputError: there are not as many tasks as prompts.
        CallbackError: ``on_trace`` raised; it has the traces.
    """
    tasks, skip, on_trace = options.get("tasks"), options.get("skip", ()), options.get("on_trace")
    if tasks is not None and len(tasks) != len(prompts):
        raise InputError(f"{len(prompts)} prompts have {len(tasks)} tasks; give one for each")
    failures: list[BaseException] = []

    async def one(number: int, sample: int, group: str) -> Trace:
        trace = await make(number, task=tasks[number] if tasks is not None else None, sample=sample, group=group)
        if on_trace is not None:
            try:
                on_trace(trace)
            except Exception as error:  # the caller's own code must not end the other traces
                failures.append(error)
        return trace

    def every() -> Iterator[tuple[int, int, str]]:
        for number, text in enumerate(prompts):
            group = uuid.uuid4().hex
            name = tasks[number] if tasks is not None else text
            yield from ((number, sample, group) for sample in range(samples) if (name, sample) not in skip)

    traces = await _gathered(one, every(), slots)
    if failures:
        raise CallbackError(traces, failures)
    return traces


async def _gathered(
    work: Callable[..., Coroutine[Any, Any, T]], arguments: Iterable[tuple[Any, ...]], slots: asyncio.Semaphore
) -> list[T]:
    """``work`` on all arguments, which are taken one by one as slots are free; if this is cancelled, so is the work."""
    tasks = []
    try:
        async with asyncio.TaskGroup() as group:
            for each in arguments:
                await slots.acquire()
                tasks.append(group.create_task(work(*each)))
                tasks[-1].add_done_callback(lambda _: slots.release())
    except ExceptionGroup as errors:  # a fault of this package: what a run meets is a status
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
