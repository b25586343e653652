"""Every bound, reached for real: the thread or the trace ends with a status that names it, and keeps what it wrote."""

import asyncio
import time

import pytest

from parallel_reason import Limits, Session
from parallel_reason.dialects import bind
from parallel_reason.runtime.events import TokensSampled, TraceFinished
from parallel_reason.tasks.countdown import held_out

PROBLEM = str(held_out(1)[0])


def statuses(trace):
    return {(thread.status, thread.stop_reason) for thread in trace.threads}


def test_without_bounds_every_thread_finishes(countdown):
    [trace] = countdown.generate(PROBLEM)
    assert statuses(trace) == {("finished", "<eos>"), ("finished", "</thread>")}
    assert trace.ledger.forks == 1
    assert trace.ledger.threads > 8


def test_threads_bound_how_many_decode_at_once(countdown):
    at_once, most = 0, 0
    generate = countdown.engine.generate

    async def counted(request, on_tokens=None):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await generate(request, on_tokens)
        finally:
            at_once -= 1

    countdown.engine.generate = counted
    try:
        [free] = countdown.generate(PROBLEM)
        assert most == free.ledger.threads - 1
        most = 0
        [bound] = countdown.generate(PROBLEM, limits=Limits(threads=3))
        assert most == 3
    finally:
        del countdown.engine.generate
    assert [t.text for t in bound.threads] == [t.text for t in free.threads]
    assert sum(t.queued_s for t in bound.threads) > sum(t.queued_s for t in free.threads)


def test_children_beyond_the_bound_come_back_cancelled(countdown):
    [trace] = countdown.generate(PROBLEM, limits=Limits(children=3))
    children = trace.children(trace.root.forks[0])
    assert [child.status for child in children[:3]] == ["finished"] * 3
    assert {(c.status, c.stop_reason) for c in children[3:]} == {("cancelled", "limits.children=3")}
    assert trace.status == "finished"


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(forks=0), "limits.forks=0"),
        (Limits(depth=0), "limits.depth=0"),
        (Limits(tokens_per_thread=30), "limits.tokens_per_thread=30"),
        (Limits(critical_path_tokens=40), "limits.critical_path_tokens=40"),
        (Limits(tokens=50), "limits.tokens=50"),
        (Limits(context=60), "limits.context=60"),
    ],
)
def test_a_bound_on_the_root_ends_the_trace_and_names_itself(countdown, limits, why):
    [trace] = countdown.generate(PROBLEM, limits=limits)
    assert (trace.status, trace.stop_reason) == ("length", why)
    assert trace.answer is None
    assert trace.text.startswith("<spawn>")


@pytest.mark.parametrize("tokens", [1, 130, 200, 333, 600])
def test_the_bound_on_all_tokens_is_never_passed_and_is_used_up(countdown, tokens):
    [trace] = countdown.generate(PROBLEM, limits=Limits(tokens=tokens))
    assert trace.ledger.sampled_tokens <= tokens
    if trace.status == "length":
        assert trace.ledger.sampled_tokens == tokens


@pytest.mark.parametrize("tokens", [150, 170, 180])
def test_the_bound_on_the_critical_path_is_never_passed(countdown, tokens):
    [trace] = countdown.generate(PROBLEM, limits=Limits(critical_path_tokens=tokens))
    assert trace.ledger.critical_path_tokens <= tokens


def test_the_deadline_keeps_what_was_written(countdown):
    started = time.perf_counter()
    trace = countdown.generate([PROBLEM] * 20, limits=Limits(deadline_s=0.3))[0]
    assert time.perf_counter() - started < 20
    assert (trace.status, trace.stop_reason) == ("cancelled", "limits.deadline_s=0.3")
    assert trace.ledger.sampled_tokens > 0
    assert countdown.kv_is_free()


def test_the_first_result_cancels_the_other_children_and_frees_their_kv(countdown):
    dialect = bind("spawn_join", countdown.engine.tokenizer, join_on="first")
    [everything] = countdown.generate(PROBLEM)

    [trace] = countdown.run_coroutine(Session(countdown.engine, dialect).run(PROBLEM))
    children = trace.children(trace.root.forks[0])
    winners = [c for c in children if c.status == "finished" and "<return>" in c.text]
    assert winners
    cancelled = [c for c in children if c.status == "cancelled"]
    assert cancelled
    assert {c.stop_reason for c in cancelled} <= {f"joined on {c.label}" for c in winners}
    assert trace.ledger.sampled_tokens < everything.ledger.sampled_tokens
    assert trace.status == "finished"
    assert countdown.kv_is_free()


def test_a_cancelled_trace_stops_all_its_threads_and_keeps_what_they_wrote(countdown):
    async def cancel():
        async for event in countdown.stream(PROBLEM):
            if isinstance(event, TokensSampled) and event.label == "0.3":
                countdown.cancel(event.trace)
            if isinstance(event, TraceFinished):
                return event.trace
        return None

    trace = asyncio.run(cancel())
    assert (trace.status, trace.stop_reason) == ("cancelled", "cancelled by the caller")
    assert {thread.status for thread in trace.threads} <= {"cancelled", "finished"}
    assert len(trace.threads) > 8
    assert trace.thread("0.3").text
    assert countdown.kv_is_free()
