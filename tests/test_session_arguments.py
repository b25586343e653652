"""`Session`: what may be given to it, as what, and what is refused in one line; samples by the thousand million."""

import asyncio
from inspect import signature

import numpy as np
import pytest

from parallel_reason import EngineError, InputError, Limits, ModelError, SamplingParams, Session, SpawnJoin
from parallel_reason.dialects import bind, find, grafts
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.runtime.arguments import RunOptions, StreamOptions
from tests.scripted import FORKS, WORDS, run, session

# Sampling, limits and counts.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limits": 5}, "limits must be a Limits of parallel_reason or a dict of its fields, not 5$"),
        ({"limits": SamplingParams()}, "limits must be a Limits .*, not SamplingParams"),
        ({"sampling": Limits()}, "sampling must be a SamplingParams .*, not Limits"),
        ({"sampling": 0.5}, "sampling must be .*, not 0.5$"),
        ({"sampling": (0.5, 1.0)}, r"sampling must be .*, not \(0.5, 1.0\)"),
        ({"sampling": np.zeros((40, 40))}, "sampling must be .*, a ndarray of numpy"),
        ({"sampling": {"temprature": 1.0}}, "sampling has no field 'temprature'; it has temperature, "),
        ({"sampling": {"temperature": -1}}, "sampling: temperature=-1: Input should be greater than or equal to 0"),
        ({"limits": {"tokens": "many"}}, "limits: tokens='many': "),
        ({"limits": {1: 2}}, "limits"),
        ({"sampling": {"presence_penalty": 1}}, "engine 'scripted' cannot do presence_penalty=1.0"),
    ],
)
def test_what_is_no_record_of_settings_is_refused_in_one_line(options, says):
    with pytest.raises(InputError, match=says) as caught:
        run(session(), **options)
    assert "\n" not in str(caught.value)


def test_a_dict_of_fields_is_a_record():
    over = session()
    [trace] = run(over, sampling={"temperature": 0.5, "seed": 3}, limits={"tokens": 100})
    assert (trace.sampling, trace.limits) == (SamplingParams(temperature=0.5, seed=3), Limits(tokens=100))
    assert over.circumstances({"seed": 3})["sampling"] == SamplingParams(seed=3)
    assert Session(over.engine, over.dialect, limits={"depth": 3}).limits == Limits(depth=3)


@pytest.mark.parametrize("count", [0, -1, 2.5, "8", None])
def test_a_count_of_traces_that_is_none_is_refused(count):
    with pytest.raises(InputError, match=f"traces_at_once must be an integer of at least 1, not {count!r}"):
        Session(session().engine, bind("spawn_join", WORDS), traces_at_once=count)


def test_faces_can_pass_on_every_argument_by_name():
    for function, options in ((Session.run, RunOptions), (Session.stream, StreamOptions)):
        by_name = [name for name, one in signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY]
        assert by_name == list(options.__annotations__)


# Samples are made when it is their turn.


def test_of_a_thousand_million_samples_only_those_exist_that_run():
    async def begin():
        engine = ScriptedEngine.from_texts(WORDS, {"0": ["c<eos>"]}, delay_s=lambda request: len(engine.requests) // 40)
        over = Session(engine, bind("spawn_join", WORDS), traces_at_once=4)
        finished = []
        call = asyncio.create_task(over.run("Q", SamplingParams(n=10**9), on_trace=finished.append))
        while len(engine.requests) < 40:
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait([call], timeout=20)
        assert call.cancelled()
        assert await over.engine.kv_is_free()
        return [trace.sample for trace in finished], len(engine.requests)

    samples, requests = asyncio.run(begin())
    assert sorted(samples) == list(range(len(samples)))
    assert 36 <= len(samples) <= requests <= 44


def test_results_come_in_order_whatever_ends_first():
    delays = {"Q": 0.2, "R": 0.0, "S": 0.0}
    engine = ScriptedEngine.from_texts(
        WORDS, {"0": ["c<eos>"]}, delay_s=lambda request: delays[WORDS.decode(request.ids)[0]]
    )
    finished = []
    over = Session(engine, bind("spawn_join", WORDS), traces_at_once=3)
    traces = run(over, ["Q", "R", "S"], sampling=SamplingParams(n=2), on_trace=finished.append)
    assert [(trace.prompt, trace.sample) for trace in traces] == [(p, n) for p in "QRS" for n in range(2)]
    assert [trace.id for trace in finished] != [trace.id for trace in traces]


def test_two_calls_share_the_slots_and_a_stream_is_not_kept_waiting_for_all_of_a_long_call():
    async def both():
        engine = ScriptedEngine.from_texts(WORDS, {"0": ["c<eos>"]})
        over = Session(engine, bind("spawn_join", WORDS), traces_at_once=2)
        finished = []
        call = asyncio.create_task(over.run("Q", SamplingParams(n=200), on_trace=finished.append))
        await asyncio.sleep(0)
        async for _ in over.stream("R"):
            pass
        before = len(finished)
        await call
        return before

    assert asyncio.run(both()) < 100


# Dialects.


def test_a_class_and_a_bound_dialect_stand_where_a_name_may():
    bound = bind(SpawnJoin, WORDS, join_on="first")
    assert bound == bind("spawn_join", WORDS, join_on="first")
    assert bind(bound, WORDS) is bound
    assert find(bound) is find(SpawnJoin) is find("spawn_join") is SpawnJoin
    assert grafts(bind("multiverse", WORDS))
    assert not grafts(bound)


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        (5, {}, "5 is no dialect: it has no name"),
        (dict, {}, "<class 'dict'> is no dialect: it has no name"),
        (SpawnJoin, {"prefx": "shared"}, "dialect 'spawn_join' has no option 'prefx'; it has prefix, join_on"),
        ("bound", {"prefix": "message"}, "dialect 'spawn_join' is bound already and takes no option 'prefix'"),
        ("none", {"paths": 2}, "dialect 'none' has no option 'paths'; it has none"),
    ],
)
def test_what_is_no_dialect_is_refused_by_name(given, options, says):
    with pytest.raises(InputError, match=says):
        bind(bind("spawn_join", WORDS) if given == "bound" else given, WORDS, **options)


def test_a_refusal_names_the_dialects_that_the_tokenizer_can_write():
    from tests.test_dialect_options import Letters

    class Vocabulary(Letters):
        def get_vocab(self):
            return {chr(number): number for number in range(128)}

    with pytest.raises(ModelError, match=r"no token for <spawn>, .* can write apr, multiverse, .*, none$"):
        bind("spawn_join", Vocabulary())


def test_without_a_dialect_tags_are_text_and_nothing_forks():
    [trace] = run(session({"0": ["".join(FORKS["0"])]}, dialect="none"))
    assert (len(trace.threads), trace.ledger.forks, trace.ledger.malformed_forks) == (1, 0, 0)
    assert (trace.status, trace.stop_reason, trace.ledger.acceleration) == ("finished", "<eos>", 1.0)
    assert trace.text == "ab<spawn>x<sep>y<sep>z</spawn>c"
    assert (trace.dialect, trace.dialect_options) == ("none", {})


def test_another_dialect_runs_over_the_same_engine_at_the_same_time():
    async def both():
        over = session()
        plain = over.with_dialect("none")
        traces = await asyncio.gather(over.run("Q"), plain.run("Q"))
        assert plain.engine is over.engine
        assert plain.limits == over.limits
        return [one for (one,) in traces]

    forked, plain = asyncio.run(both())
    assert (forked.dialect, forked.ledger.forks) == ("spawn_join", 1)
    assert (plain.dialect, plain.ledger.forks) == ("none", 0)


def test_closing_a_session_of_another_dialect_leaves_the_engine_and_closing_the_first_closes_all():
    async def close():
        over = session(delay_s=lambda request: 1e9 if request.label == "0.1" else 0)
        first, second = over.with_dialect("none"), over.with_dialect(SpawnJoin, join_on="first")
        await first.close()
        with pytest.raises(EngineError, match="closed"):
            await first.run("Q")
        assert (await second.run("Q"))[0].status == "finished"
        running = asyncio.create_task(second.with_dialect("spawn_join").run("Q"))
        await asyncio.sleep(0.05)
        await over.close()
        with pytest.raises(EngineError, match="the session was closed while this call ran"):
            await running
        with pytest.raises(EngineError, match="closed"):
            over.with_dialect("none")
        with pytest.raises(EngineError, match="closed"):
            await over.engine.generate(None)

    asyncio.run(close())


def test_a_dialect_that_the_engine_cannot_join_is_refused_with_the_way_out():
    over = Session(ScriptedEngine(WORDS, lambda request, sampled: [], graft=False), bind("spawn_join", WORDS))
    with pytest.raises(InputError, match=r"'multiverse' joins by graft, .*graft=True"):
        over.with_dialect("multiverse")
