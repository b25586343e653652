"""The events of a trace that a program makes."""

import asyncio
from contextlib import aclosing

import pytest

from parallel_reason import InputError
from parallel_reason.runtime.events import ForkJoined, ThreadEnded, ThreadStarted, TokensSampled, TraceFinished
from tests.scripted_programs import endless


async def compare(t):
    paths = t.fork(["A", "B"])
    await paths.sample(3)
    t.join(paths[1:], "message", "so")
    return await t.sample(2)


def events_of(program, over):
    async def read():
        return [event async for event in over.stream("Q", program=program, task="one")]

    return asyncio.run(read())


def test_every_thread_token_and_join_is_an_event_and_the_trace_is_the_last():
    events = events_of(compare, endless())
    assert [(event.label, event.parent, event.text) for event in events if isinstance(event, ThreadStarted)] == [
        ("0", None, "Q"), ("0.0", "0", "A"), ("0.1", "0", "B"),
    ]  # fmt: skip
    sampled = {}
    for event in events:
        if isinstance(event, TokensSampled):
            sampled[event.label] = sampled.get(event.label, "") + event.text
    assert sampled == {"0": "aa", "0.0": "aaa", "0.1": "aaa"}
    [join] = [event for event in events if isinstance(event, ForkJoined)]
    assert (join.label, join.children, join.text) == ("0", ("0.1",), "so")
    assert {event.label for event in events if isinstance(event, ThreadEnded)} == {"0", "0.0", "0.1"}
    assert isinstance(events[-1], TraceFinished)
    trace = events[-1].trace
    assert (trace.answer, trace.dialect, trace.task) == ("aa", "program:compare", "one")
    assert trace.limits.children > 1000


def test_leaving_the_stream_cancels_the_program():
    over = endless(0.001)
    ended = []

    async def forever(t):
        try:
            while True:
                await t.sample(5)
        finally:
            ended.append(t.sampled_tokens)

    async def leave():
        async with aclosing(over.stream("Q", program=forever)) as events:
            async for event in events:
                if isinstance(event, TokensSampled):
                    break
        return await over.kv_is_free()

    assert asyncio.run(leave())
    assert ended[0] < 100  # far from where its limits would have ended it


def test_what_is_no_program_is_refused():
    with pytest.raises(InputError, match="a program is an async function of a thread, not 5"):
        events_of(5, endless())
