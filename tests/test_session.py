"""`Session` over an engine without a model: what goes wrong, what is recorded, seeds, counts and calls at odd times."""

import asyncio
import random

import pytest

from parallel_reason import CallbackError, EngineError, Limits, SamplingParams, Session
from parallel_reason.dialects import bind
from parallel_reason.dialects.base import Continuation, Insert
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.runtime.events import TokensSampled
from parallel_reason.trace import from_json
from tests.scripted import FORKS, WORDS, ids, run, session

# What is recorded.


def test_a_trace_says_how_it_was_made():
    sampling, limits = SamplingParams(temperature=0.5, n=2, seed=7), Limits(tokens=100)
    traces = run(session(), ["Q", "R"], sampling=sampling, limits=limits, tasks=["one", "two"])
    numbered = [("one", 0, 0), ("one", 0, 1), ("two", 1, 0), ("two", 1, 1)]
    assert [(trace.task, trace.prompt_index, trace.sample) for trace in traces] == numbered
    assert len({t.id for t in traces}) == 4
    assert traces[0].group == traces[1].group != traces[2].group == traces[3].group
    trace = traces[3]
    assert (trace.prompt, trace.prompt_ids) == ("R", ids("R"))
    assert (trace.sampling, trace.limits) == (sampling, limits)
    assert (trace.engine, trace.model, trace.dialect) == ("scripted", "scripted", "spawn_join")
    assert trace.dialect_options == {"prefix": "shared", "join_on": "all"}
    assert {"parallel-reason", "torch", "transformers"} <= trace.versions.keys()
    assert (trace.logprobs_mode, trace.errors) == ("raw_logprobs", [])
    assert from_json(trace.to_json()) == trace


def test_spans_have_times_on_one_clock_and_the_version_of_the_weights():
    over = session(delay_s=lambda request: 0.01)
    [trace] = run(over)
    for thread in trace.threads:
        times = [(span.started_s, span.ended_s) for span in thread.spans]
        assert all(start <= end for start, end in times)
        assert times == sorted(times)
        assert all((span.policy_version == 0) == (span.origin == "sampled") for span in thread.spans)
    sampled = [span for span in trace.root.spans if span.origin == "sampled"]
    children = [thread.spans[-1] for thread in trace.threads[1:]]
    assert sampled[0].ended_s <= min(span.started_s for span in children)
    assert max(span.ended_s for span in children) <= sampled[1].started_s
    assert sampled[-1].ended_s <= trace.ledger.wall_s


def test_a_trace_that_straddles_an_update_of_the_weights_says_so():
    over = session({"0": ["abababab<eos>"]}, delay_s=lambda request: 0.02)

    async def update():
        events = []
        async for event in over.stream("Q"):
            events.append(event)
            if isinstance(event, TokensSampled) and len(events) == 4:
                await over.update_weights("new")
        return events[-1].trace

    trace = asyncio.run(update())
    spans = [span for span in trace.root.spans if span.origin == "sampled"]
    assert [span.policy_version for span in spans] == [0, 1]
    assert [token for span in spans for token in span.ids] == ids("abababab<eos>")
    assert len(spans[0].ids) in (2, 3, 4)


def test_top_logprobs_are_recorded_for_every_sampled_token():
    [trace] = run(session(), sampling=SamplingParams(logprobs=3))
    for span in (span for thread in trace.threads for span in thread.spans):
        assert len(span.top_logprobs) == (len(span.ids) if span.origin == "sampled" else 0)


def test_the_answer_is_all_that_the_root_sampled_after_its_last_join():
    [trace] = run(session({"0": ["1+2=3</spawn>", ",3*4=12<eos>"]}))
    assert trace.answer == "1+2=3</spawn>,3*4=12"
    assert trace.ledger.malformed_forks == 1
    [trace] = run(session(FORKS | {"0": [FORKS["0"][0], "1</spawn>", "2<eos>"]}))
    assert trace.answer == "1</spawn>2"
    [trace] = run(session({"0": ["a"]}), limits=Limits(tokens=1))
    assert (trace.status, trace.answer) == ("length", None)


def test_the_stop_reason_of_a_tag_that_the_tokenizer_splits_is_the_whole_tag():
    from benchmarks.grammars import tokenizer

    letters = tokenizer([])
    texts = {"0": ["<Goal><Outline>1:a</Outline></Goal>", [letters.eos_token_id]], "0.0": ["x</Path>"]}
    over = Session(ScriptedEngine.from_texts(letters, texts, graft=True), bind("multiverse", letters))
    [trace] = run(over)
    assert [thread.stop_reason for thread in trace.threads] == ["<eos>", "</Path>"]


# Nothing is lost.


def failing(error, label="0.1"):
    """A policy that raises in one thread of a prompt that begins with Q."""
    scripted = ScriptedEngine.from_texts(WORDS, FORKS)
    policy = scripted._next_tokens

    def next_tokens(request, sampled):
        if request.label == label and request.ids[0] == ids("Q")[0]:
            raise error
        return policy(request, sampled)

    return Session(ScriptedEngine(WORDS, next_tokens), bind("spawn_join", WORDS))


@pytest.mark.parametrize("error", [RuntimeError("boom"), ValueError("odd"), EngineError("dead"), OSError(5, "I/O")])
def test_whatever_one_request_raises_is_the_status_of_its_thread_and_all_others_go_on(error, caplog):
    over = failing(error)
    failed, fine = run(over, ["Q", "R"])
    child = failed.thread("0.1")
    assert child.status == "failed"
    assert str(error) in child.stop_reason
    assert failed.errors == [f"{type(error).__name__}: {error}"]
    assert failed.status == "finished"
    assert failed.root.spans[2].ids == ids("<join>r<sep><none><sep>t</join>")
    assert (fine.status, fine.errors, fine.ledger.failed_threads) == ("finished", [], 0)
    assert ("Traceback" in caplog.text) == (not isinstance(error, EngineError))  # programming errors are logged
    assert asyncio.run(over.engine.kv_is_free())


def test_an_error_in_the_root_is_the_status_of_the_trace():
    failed, fine = run(failing(RuntimeError("boom"), label="0"), ["Q", "R"])
    assert (failed.status, failed.stop_reason) == ("failed", "RuntimeError: boom")
    assert fine.status == "finished"
    assert from_json(failed.to_json()) == failed


@pytest.mark.parametrize("where", ["step", "join", "stops", "returns"])
def test_a_dialect_that_raises_fails_its_thread_alone(where):
    class Broken:
        def __init__(self, dialect):
            self.dialect = dialect

        def __getattr__(self, name):
            if name != where:
                return getattr(self.dialect, name)
            raise ZeroDivisionError(where)

    engine = ScriptedEngine.from_texts(WORDS, FORKS)
    over = Session(engine, Broken(bind("spawn_join", WORDS, join_on="first")))
    [trace] = run(over)
    assert any("ZeroDivisionError" in error for error in trace.errors)
    assert all(thread.status for thread in trace.threads)
    if where != "returns":
        assert trace.status == "failed"


def test_children_of_a_fork_whose_parent_failed_before_they_ran_did_not_finish():
    """On an engine that grafts, a fork first computes the KV of the parent, and here that fails."""
    texts = {"0": ["<Goal><Outline>1:a</Outline><Outline>2:b</Outline></Goal>", "b<eos>"], "0.0": ["x</Path>"]}
    engine = ScriptedEngine.from_texts(WORDS, texts, graft=True)
    generate = engine.generate

    async def fail(request, on_tokens=None):
        if request.max_tokens == 0:
            raise EngineError("no KV left")
        return await generate(request, on_tokens)

    engine.generate = fail
    [trace] = run(Session(engine, bind("multiverse", WORDS)))
    assert (trace.status, trace.stop_reason) == ("failed", "no KV left")
    assert [thread.status for thread in trace.threads[1:]] == ["cancelled", "cancelled"]
    assert trace.ledger.prefilled_tokens < 30


def test_a_callback_that_raises_cancels_nothing_and_is_reported_at_the_end():
    seen = []

    def on_trace(trace):
        seen.append(trace)
        if trace.prompt in "bd":
            raise OSError(28, "No space left on device")

    with pytest.raises(CallbackError, match=r"2 of 5 traces .*No space left on device") as caught:
        run(session(), list("abcde"), on_trace=on_trace)
    assert [trace.prompt for trace in caught.value.traces] == list("abcde")
    assert {trace.status for trace in caught.value.traces} == {"finished"}
    assert len(seen) == 5


def test_an_engine_that_gives_too_few_logprobs_fails_the_thread_and_the_trace_can_be_read_back():
    over = session({"0": ["abc<eos>"]})
    generate = over.engine.generate

    async def short(request, on_tokens=None):
        output = await generate(request, on_tokens)
        output.logprobs.pop()
        return output

    over.engine.generate = short
    [trace] = run(over)
    assert (trace.status, trace.stop_reason) == ("failed", "engine 'scripted' returned 3 log-probs for 4 tokens")
    assert from_json(trace.to_json()) == trace


def test_a_dialect_that_writes_nothing_at_a_join_does_no_harm():
    class Silent:
        def __init__(self, dialect):
            self.dialect = dialect

        def __getattr__(self, name):
            return getattr(self.dialect, name)

        def join(self, view, children):
            return Continuation((Insert(()),))

    engine = ScriptedEngine.from_texts(WORDS, FORKS)
    [trace] = run(Session(engine, Silent(bind("spawn_join", WORDS))))
    assert (trace.status, trace.answer) == ("finished", "c")


# Counts are what the engine did.


def test_a_child_that_was_cancelled_before_it_ran_adds_nothing():
    """The first child returns at once; the others wait for ever and are ended before they ran."""
    slow = {"0.1", "0.2"}
    over = session(delay_s=lambda request: float("inf") if request.label in slow else 0, join_on="first")
    generate = over.engine.generate

    async def uncached(request, on_tokens=None):
        output = await generate(request, on_tokens)
        output.cached_tokens = 0
        return output

    over.engine.generate = uncached
    [trace] = run(over)
    assert [(thread.status, thread.prefilled_tokens) for thread in trace.threads[2:]] == [("cancelled", 0)] * 2
    ran = [request for request in over.engine.requests if request.label not in slow]
    assert trace.ledger.prefilled_tokens == sum(len(request.ids) for request in ran)
    forked = len(trace.prompt_ids) + len(ids(FORKS["0"][0]))
    assert trace.ledger.recomputed_tokens == forked * 2  # by 0.0 and by the parent, as nothing was cached
    assert trace.thread("0.0").prefilled_tokens == forked + 2


def test_an_engine_that_cannot_tell_what_was_cached_leaves_the_counts_unknown():
    over = session()
    generate = over.engine.generate

    async def silent(request, on_tokens=None):
        output = await generate(request, on_tokens)
        output.cached_tokens = None
        return output

    over.engine.generate = silent
    [trace] = run(over)
    assert (trace.ledger.cached_tokens, trace.ledger.recomputed_tokens) == (None, None)
    assert trace.ledger.prefilled_tokens > 0


# Seeds and timing.


def drawn(seed, delays, limits, prompt="Q", others=0):
    """The threads of a run whose tokens are a function of its requests' seeds and draws, under some timing."""
    rng = random.Random(delays)
    words = [*"abxy", "<spawn>", "<spawn>", "<sep>", "</spawn>", "</spawn>", "</thread>"]

    def next_tokens(request, sampled):
        draw = random.Random(f"{request.seed} {request.first_draw + len(sampled)}")
        return ids(draw.choice(words))

    engine = ScriptedEngine(WORDS, next_tokens, delay_s=lambda request: rng.choice([0, 0, 0.001, 0.004]))
    over = Session(engine, bind("spawn_join", WORDS))
    prompts = [prompt, *(f"R{number}" for number in range(others))]
    trace = run(over, prompts, sampling=SamplingParams(temperature=1.0, seed=seed), limits=limits)[0]
    return [(thread.label, thread.status, thread.stop_reason, thread.text) for thread in trace.threads]


LIMITS = [
    Limits(depth=3, tokens=400, tokens_per_thread=60, forks=9),
    Limits(depth=3, tokens=150),
    Limits(depth=3, tokens_per_thread=40, forks=4),
]


@pytest.mark.parametrize("limits", LIMITS)
def test_the_same_seed_gives_the_same_trace_whatever_the_timing_and_whatever_else_runs(limits):
    forks = 0
    for seed in range(6):
        first = drawn(seed, 0, limits)
        forks += len(first) > 1
        assert drawn(seed, 1, limits) == first
        assert drawn(seed, 2, limits, others=5) == first
        assert drawn(seed + 100, 0, limits) != first
    assert forks >= 2


def test_different_prompts_samples_and_threads_draw_different_noise():
    over = session()
    run(over, ["Q", "R"], sampling=SamplingParams(temperature=1.0, seed=0, n=2))
    seeds = {(request.trace, request.label): request.seed for request in over.engine.requests}
    assert len(set(seeds.values())) == len(seeds) == 4 * 4
    again = session()
    run(again, ["R", "Q"], sampling=SamplingParams(temperature=1.0, seed=0, n=2))
    assert sorted(request.seed for request in again.engine.requests) == sorted(
        request.seed for request in over.engine.requests
    )


def test_tokens_are_numbered_over_all_requests_of_a_thread():
    over = session()
    run(over, sampling=SamplingParams(temperature=1.0, seed=0))
    root = [request for request in over.engine.requests if request.label == "0"]
    assert [request.first_draw for request in root] == [0, len(ids(FORKS["0"][0]))]


def test_a_bound_on_all_tokens_goes_to_who_needs_it():
    """Three children, two of which end at once: the third may use what they left."""
    texts = {
        "0": ["<spawn>x<sep>y<sep>z</spawn>", "c<eos>"],
        "0.0": ["</thread>"],
        "0.1": ["a" * 90 + "</thread>"],
        "0.2": ["</thread>"],
    }
    [trace] = run(session(texts), limits=Limits(tokens=120))
    assert trace.thread("0.1").status == "finished"
    [trace] = run(session(texts), limits=Limits(tokens=60))
    assert trace.thread("0.1").stop_reason == "limits.tokens=60"
    assert (trace.stop_reason, trace.ledger.sampled_tokens) == ("limits.tokens=60", 60)
