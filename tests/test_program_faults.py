"""What ends programs, on an engine that writes given texts: limits, failures, cancellation, wrong calls."""

import asyncio
import functools
import logging
import math
from dataclasses import dataclass

import pytest

from parallel_reason import Limits, SamplingParams, Session, TraceWriter, layout, resume
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.errors import EngineError, InputError
from parallel_reason.trace.masks import dense
from tests.scripted import WORDS, ids
from tests.scripted_programs import endless, run


async def everything(t):
    """A program that samples as much as it may, in every way."""
    paths = t.fork(3)
    await paths.sample()
    await paths[0].fork(2).sample()
    t.join(paths[1:], "graft")
    return await t.sample()


@pytest.mark.parametrize(
    ("limits", "tokens", "reason"),
    [
        ({"tokens": 50}, 50, "limits.tokens=50"),
        ({"tokens": 1}, 1, "limits.tokens=1"),
        ({"tokens_per_thread": 6}, 6 * 6, "limits.tokens_per_thread=6"),
        ({"critical_path_tokens": 9}, None, "limits.critical_path_tokens=9"),
        ({"context": 20}, None, "limits.context=20"),
        ({"depth": 1, "tokens_per_thread": 5}, 5 * 4, "limits.depth=1"),
        ({"depth": 0, "tokens_per_thread": 5}, 5, "limits.depth=0"),
        ({"forks": 1, "tokens_per_thread": 5}, 5 * 4, "limits.forks=1"),
        ({"children": 2, "tokens_per_thread": 5}, 5 * 5, "limits.children=2"),
        ({"threads": 1, "tokens_per_thread": 4}, 4 * 6, "limits.tokens_per_thread=4"),
    ],
)
def test_every_limit_is_kept_and_named(limits, tokens, reason):
    trace = run(everything, limits=limits, over=endless())
    assert reason in {thread.stop_reason for thread in trace.threads}
    assert tokens in (None, trace.ledger.sampled_tokens)
    assert trace.ledger.critical_path_tokens <= limits.get("critical_path_tokens", math.inf)
    assert (trace.status, trace.errors) == ("length", [])


def test_a_bound_on_all_tokens_is_dealt_evenly_among_calls_that_begin_at_once():
    async def program(t):
        await t.fork(4).sample()

    trace = run(program, limits={"tokens": 91}, over=endless())
    drawn = [thread.tokens("sampled") for thread in trace.threads[1:]]
    assert sum(drawn) == 91
    assert max(drawn) - min(drawn) <= 3


def test_a_call_has_its_own_bound_and_stops_and_its_thread_those_of_the_run():
    async def program(t):
        assert await t.sample(2) == "aa"
        assert await t.sample(50, stop_token_ids=ids("a")) == "a"
        assert not t.ended
        await t.sample(50)
        assert t.stop_reason == "sampling.max_tokens=9"

    trace = run(program, over=endless(), sampling=SamplingParams(max_tokens=9))
    assert (trace.status, trace.ledger.sampled_tokens) == ("length", 9)


def test_a_deadline_ends_all_threads_and_the_program_still_answers():
    async def program(t):
        paths = t.fork(2)
        await paths.sample()
        return f"{len(paths.running)} of {len(paths)} run, {paths[0].status}"

    trace = run(program, limits={"deadline_s": 0.6}, over=endless(0.01))
    assert trace.answer == "0 of 2 run, cancelled"
    assert (trace.status, trace.stop_reason) == ("cancelled", "limits.deadline_s=0.6")
    assert all(thread.ran for thread in trace.threads[1:])


def test_a_program_that_does_not_return_after_its_deadline_is_cancelled(monkeypatch):
    monkeypatch.setattr("parallel_reason.runtime.program_run.GRACE_S", 0.05)

    async def program(t):
        t.finish("so far")
        await asyncio.Event().wait()

    trace = run(program, limits={"deadline_s": 0.05}, over=endless())
    assert (trace.status, trace.answer) == ("cancelled", "so far")


def test_a_loop_that_never_sees_that_its_thread_has_ended_fails():
    async def program(t):
        while True:
            await t.sample()

    trace = run(program)
    assert trace.status == "failed"
    assert "look at t.ended in the loop" in trace.stop_reason


def test_a_cancelled_thread_stops_at_once_with_all_below_it():
    async def program(t):
        path, other = t.fork(2)
        below = path.probe("x")
        sampling = [asyncio.ensure_future(one.sample()) for one in (path, below)]
        await other.sample(5)
        path.cancel("too long")
        texts = await asyncio.gather(*sampling)
        assert all(texts)
        assert (path.status, below.status, other.status) == ("cancelled", "cancelled", None)
        assert await path.sample() == ""
        assert await path.score("a") == -math.inf
        path.write("b")
        assert path.fork(1)[0].status == "cancelled"
        t.join([path, other], "graft")
        return "on"

    trace = run(program, over=endless(0.001))
    assert trace.answer == "on"
    assert [thread.stop_reason for thread in trace.threads if thread.status == "cancelled"] == ["too long"] * 3


def test_a_join_leaves_out_children_that_were_cancelled():
    async def program(t):
        paths = t.fork(["A", "B"])
        await paths.sample()
        paths[0].cancel()
        t.join(paths, "relinearise")
        return await t.sample()

    trace = run(program)
    row = layout(trace)
    newest = max(segment.stop for segment in row.segments if segment.thread == 0) - 1
    text = "".join(WORDS.convert_ids_to_tokens(row.ids[dense(row)[newest].numpy()].tolist()))
    assert "Bb" in text
    assert "Aaa" not in text


def test_what_an_engine_raises_is_the_status_of_one_thread():
    def write(request, sampled):
        if request.label == "0.1":
            raise EngineError("out of order")
        return ids("a")

    async def program(t):
        paths = t.fork(3)
        await paths.sample(4)
        t.join(paths, "graft")
        return f"{[path.status for path in paths]} {await t.sample(2)}"

    trace = run(program, over=Session(ScriptedEngine(WORDS, write), bind("none", WORDS)))
    assert trace.answer == "['finished', 'failed', 'finished'] aa"
    assert trace.thread("0.1").stop_reason == "out of order"
    assert (trace.status, trace.errors) == ("finished", ["EngineError: out of order"])


def test_what_a_program_raises_ends_its_trace_alone(caplog):
    async def program(t):
        paths = t.fork(2)
        running = asyncio.ensure_future(paths.sample())
        await asyncio.sleep(0.01)
        if t.problem == "bad":
            raise KeyError("no such plan")
        running.cancel()
        return "fine"

    async def both():
        over = endless(0.001)
        traces = await over.run_program(program, ["bad", "good"])
        assert await over.engine.kv_is_free()
        return traces

    with caplog.at_level(logging.CRITICAL):
        bad, good = asyncio.run(both())
    assert (bad.status, bad.stop_reason) == ("failed", "KeyError: 'no such plan'")
    assert {thread.status for thread in bad.threads[1:]} == {"cancelled"}
    assert (good.status, good.answer) == ("finished", "fine")


def test_children_that_run_when_the_program_returns_are_cancelled():
    async def program(t):
        paths = t.fork(2)
        t.running = asyncio.ensure_future(paths.sample())
        while not all(path.sampled_tokens for path in paths):
            await asyncio.sleep(0.001)

    trace = run(program, over=endless(0.001))
    assert trace.status == "finished"
    for thread in trace.threads[1:]:
        assert (thread.status, thread.stop_reason) == ("cancelled", "the program ended")
        assert thread.ran


def test_a_call_that_is_cancelled_leaves_its_thread_as_it_is():
    async def program(t):
        sampling = asyncio.ensure_future(t.sample())
        while not t.sampled_tokens:
            await asyncio.sleep(0.001)
        sampling.cancel()
        await asyncio.wait([sampling])
        t.write("b")
        return await t.sample(3)

    assert run(program, over=endless(0.002)).answer == "aaa"


def test_a_run_that_is_cancelled_frees_all():
    async def program(t):
        await t.fork(3).sample()

    async def cancelled():
        over = endless(0.001)
        running = asyncio.ensure_future(over.run_program(program, "Q"))
        while len(over.engine.requests) < 3:
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await over.engine.kv_is_free()

    asyncio.run(cancelled())


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (lambda t: t.fork("AB"), "fork takes a list of headers"),
        (lambda t: t.fork(1, shares_prefix=False), "needs a header"),
        (lambda t: t.write([999_999]), "token id 999999 is outside"),
        (lambda t: t.join(t.fork(1), "vote"), "no join rule 'vote'; use one of 'message'"),
        (lambda t: t.join(t.fork(1)[0].fork(1)), "thread 0.0.0 is no child of thread 0"),
        (lambda t: t.join(t.probe("x"), "graft"), "join it by 'message'"),
        (lambda t: [t.fork(1), t.write("x")], "waits for the threads it forked: join them first"),
        (lambda t: t.sample(n=2), "n=2 is of a whole trace"),
        (lambda t: t.sample(temperatur=2), "sampling has no field 'temperatur'"),
        (lambda t: t.sample(0), "max_tokens=0: Input should be greater"),
        (lambda t: t.sample(min_p=7), "min_p=7"),
        (lambda t: asyncio.gather(t.sample(5), t.sample(5)), "thread 0 samples: await that first, or probe it"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(verb, said):
    async def program(t):
        made = verb(t)
        if asyncio.iscoroutine(made) or asyncio.isfuture(made):
            await made

    trace = run(program, over=endless())
    assert trace.status == "failed"
    assert said in trace.stop_reason


def test_a_graft_is_refused_where_the_engine_cannot():
    async def program(t):
        paths = t.fork(2)
        await paths.sample(2)
        t.join(paths, "graft")

    trace = run(program, over=endless(graft=False))
    assert (
        "engine 'scripted' as it was started cannot join by graft; start engine 'vllm' with graft=True"
        in trace.errors[0]
    )


@pytest.mark.parametrize("program", ["best", None])
def test_what_is_no_program_is_refused(program):
    with pytest.raises(InputError, match="a program is an async function of a thread"):
        run(program)


def test_an_option_that_a_run_does_not_have_is_refused():
    with pytest.raises(InputError, match="takes no 'task'; it takes prompt"):
        asyncio.run(endless().run_program(everything, "Q", task="x"))


def test_a_function_that_is_not_async_fails_its_trace():
    trace = run(lambda t: "answer")
    assert "a program is an async function" in trace.stop_reason


@dataclass(frozen=True)
class Best:
    """A program with settings."""

    n: int = 2
    judge: object = len
    name = "best"

    async def __call__(self, t):
        await t.fork(self.n).sample(3)


def test_a_run_resumes_and_refuses_one_of_another_program_or_setting(tmp_path):
    path, over, seen = tmp_path / "traces.jsonl", endless(), []

    async def traced(program, skip=(), on_trace=None):
        return await over.run_program(program, ["Q", "R"], {"n": 2}, skip=skip, on_trace=on_trace)

    with TraceWriter(path) as writer:
        first = asyncio.run(traced(Best(), skip={("R", 1)}, on_trace=writer.write))
    assert (first[0].dialect, first[0].dialect_options) == ("program:best", {"n": 2, "judge": "len"})
    kept = resume(path, **over.circumstances({"n": 2}, program=Best()))
    asyncio.run(traced(Best(), skip=kept, on_trace=seen.append))
    assert [(trace.prompt, trace.sample) for trace in seen] == [("R", 1)]
    for other in (Best(3), functools.partial(everything, n=2)):
        with pytest.raises(InputError, match="give the settings of that run"):
            resume(path, **over.circumstances({"n": 2}, program=other))


def test_bounds_that_nobody_gave_are_wider_for_programs():
    given = endless().circumstances(limits=Limits(depth=3), program=everything)["limits"]
    assert (given.depth, given.tokens_per_thread) == (3, Limits().tokens_per_thread)
    assert given.forks > 10_000


def test_random_numbers_are_those_of_the_seed_and_the_thread():
    async def program(t):
        return [thread.rng.random() for thread in (t, *t.fork(2))]

    def drawn(seed):
        return run(program, over=endless(), sampling=SamplingParams(seed=seed)).answer

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(None) != drawn(None)
