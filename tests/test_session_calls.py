"""`Session` over an engine without a model: deep nesting, calls at odd times, events, and prompts."""

import asyncio

import pytest

from parallel_reason import EngineError, InputError, Limits, SamplingParams, Session
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.runtime.events import ForkJoined, ThreadEnded, ThreadStarted, TraceFinished
from parallel_reason.trace import from_json
from tests.scripted import WORDS, ids, run, session

# Depth.


@pytest.mark.parametrize("depth", [60, 300])
def test_threads_nest_as_deep_as_the_limits_say(depth):
    def next_tokens(request, sampled):
        return ids("<spawn>x</spawn>") if not sampled and "<join>" not in WORDS.decode(request.ids) else ids("<eos>")

    over = Session(ScriptedEngine(WORDS, next_tokens), bind("spawn_join", WORDS))
    [trace] = run(over, limits=Limits(depth=depth, forks=depth + 1))
    assert len(trace.threads) == depth + 1
    assert trace.threads[-1].stop_reason == f"limits.depth={depth}"
    assert from_json(trace.to_json()) == trace

    async def cancel():
        slow = ScriptedEngine(WORDS, next_tokens, delay_s=lambda r: 1e9 if r.label.count(".") == depth else 0)
        deep = Session(slow, bind("spawn_join", WORDS))
        async for event in deep.stream("Q", limits=Limits(depth=depth, forks=depth + 1)):
            if isinstance(event, ThreadStarted) and event.label.count(".") == depth:
                await deep.cancel(event.trace)
            if isinstance(event, TraceFinished):
                return event.trace
        return None

    assert asyncio.run(cancel()).threads[-1].status == "cancelled"


# Calls at odd times.


def test_closing_while_calls_run_ends_each_with_an_engine_error():
    async def close():
        over = session(delay_s=lambda request: 1e9)
        calls = [asyncio.create_task(over.run("Q")), asyncio.create_task(over.run(["Q", "R"]))]
        async with asyncio.TaskGroup() as group:
            stream = group.create_task(read(over))
            await asyncio.sleep(0.05)
            await over.close()
        said = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(EngineError, match="closed"):
            await over.run("Q")
        return [*said, stream.result(), len(over.engine.requests)]

    async def read(over):
        try:
            async for _ in over.stream("Q"):
                pass
        except EngineError as error:
            return error

    *errors, requests = asyncio.run(close())
    assert requests == 4
    assert [type(error) for error in errors] == [EngineError] * 3
    assert all("closed" in str(error) for error in errors)


def test_a_cancelled_call_frees_what_it_holds_and_raises_cancelled():
    async def cancel():
        over = session(delay_s=lambda request: 1e9)
        call = asyncio.create_task(over.run("Q"))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        return call.cancelled(), over.engine.admission.held, over.engine.admission.running

    assert asyncio.run(cancel()) == (True, 0, 0)


def test_samples_that_are_skipped_are_not_run():
    over = session({"0": ["c<eos>"]})
    traces = run(over, ["Q", "R"], sampling=SamplingParams(n=2), tasks=["one", "two"], skip={("one", 1), ("two", 0)})
    assert [(trace.task, trace.sample) for trace in traces] == [("one", 0), ("two", 1)]


def test_events_of_a_run_come_in_order():
    async def collect():
        return [event async for event in session().stream("Q")]

    events = asyncio.run(collect())
    assert isinstance(events[0], ThreadStarted)
    assert [event.label for event in events if isinstance(event, ThreadStarted)] == ["0", "0.0", "0.1", "0.2"]
    joined = next(place for place, event in enumerate(events) if isinstance(event, ForkJoined))
    assert {event.label for event in events[:joined] if isinstance(event, ThreadEnded)} == {"0.0", "0.1", "0.2"}
    assert events[joined].children == ("0.0", "0.1", "0.2")
    assert events[joined].text == "<join>r<sep>s<sep>t</join>"
    assert isinstance(events[-1], TraceFinished)
    assert {event.trace for event in events[:-1]} == {events[-1].trace.id}


# Prompts.


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("\ud800", "half of a character"),
        ([{"content": "hi"}], "chat message 0"),
        ([{"role": "user", "content": None}], "chat message 0"),
        ([{"role": "user"}], "chat message 0"),
        (5, "not 5"),
        (b"Q", "not b'Q'"),
        ([["a"]], "not \\['a'\\]"),
        ({"role": "user"}, "not {"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_an_input_error_in_one_line(prompt, says):
    with pytest.raises(InputError, match=says) as caught:
        run(session(), prompt)
    assert "\n" not in str(caught.value)


def test_a_literal_unknown_token_is_text_like_any_other():
    from parallel_reason.tasks.countdown.vocabulary import tokenizer

    words = tokenizer()
    over = Session(ScriptedEngine.from_texts(words, {"0": ["1"]}), bind("spawn_join", words))
    [trace] = run(over, "1,<unk>=3")
    assert words.unk_token_id in trace.prompt_ids
    with pytest.raises(InputError, match="no token for a part of the prompt"):
        run(over, "1,<unk>=x")


def test_as_many_tasks_as_prompts():
    with pytest.raises(InputError, match="2 prompts have 1 tasks"):
        run(session(), ["Q", "R"], tasks=["one"])
