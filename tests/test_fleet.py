"""A fleet on a real local Ray, with real faults: processes killed, stopped, and weights cut short.

`python -m benchmarks.fleet_faults` has the slower ones: a node that is removed, a driver that is killed, vLLM.
"""

import logging
import signal

import pytest

from benchmarks.local_ray import ray_cluster
from parallel_reason import EngineError, Fleet, InputError, Limits, ModelError, ParallelLLM, SamplingParams
from parallel_reason.engines import EMBEDDED
from parallel_reason.fleet.health import GROWTH, leaks
from parallel_reason.fleet.messages import Integrity
from parallel_reason.tasks.countdown import held_out
from tests.deadly import Deadly
from tests.fleets import QUICK, After, alive, kill, members, restarts, tokens, wait_until

pytestmark = pytest.mark.fleet

PROMPTS = [str(problem) for problem in held_out(6)]
LIMITS = Limits(children=2)
SAMPLING = SamplingParams(temperature=1.0, n=2, seed=5)


@pytest.fixture(scope="module")
def on_ray():
    with ray_cluster(num_cpus=2):
        yield


@pytest.fixture(scope="module")
def one():
    with ParallelLLM(engine="torch", limits=LIMITS) as llm:
        yield llm


@pytest.fixture(scope="module")
def fleet(on_ray):
    settings = Fleet(engines=2, cpus_per_engine=0.5, traces_per_engine=4, name="test", **QUICK)
    with ParallelLLM(engine="torch", fleet=settings, limits=LIMITS) as llm:
        yield llm


@pytest.fixture(scope="module")
def expected(one):
    return one.generate(PROMPTS, SAMPLING)


def check_whole(traces, expected):
    """Every prompt has one trace, which is that of one engine without faults."""
    assert [(trace.prompt_index, trace.sample) for trace in traces] == [(n, s) for n in range(6) for s in range(2)]
    assert tokens(traces) == tokens(expected)
    assert len({trace.id for trace in traces}) == len(traces)
    assert {trace.status for trace in traces} == {"finished"}


def test_two_engines_give_what_one_gives(fleet, expected):
    seen = After(0, None)
    traces = fleet.generate(PROMPTS, SAMPLING, on_trace=seen, tasks=PROMPTS)
    check_whole(traces, expected)
    assert sorted(trace.id for trace in seen.seen) == sorted(trace.id for trace in traces)
    assert [trace.task for trace in traces] == [prompt for prompt in PROMPTS for _ in range(2)]
    assert len({trace.group for trace in traces}) == len(PROMPTS)
    assert traces[0].model == expected[0].model
    assert fleet.kv_is_free()


def test_the_verbs_of_a_session(fleet, one):
    assert fleet.circumstances() == one.circumstances()
    assert fleet.score([1, 2, 3, 4]) == pytest.approx(one.score([1, 2, 3, 4]), abs=1e-5)
    *events, last = fleet.stream_sync(PROMPTS[0], SamplingParams(temperature=1.0, seed=5))
    *alone, finished = one.stream_sync(PROMPTS[0], SamplingParams(temperature=1.0, seed=5))
    assert tokens([last.trace]) == tokens([finished.trace])
    assert sorted((type(event).__name__, event.label) for event in events) == sorted(
        (type(event).__name__, event.label) for event in alone
    )
    short = Limits(tokens=30)
    sequential = fleet.with_dialect("none").generate(PROMPTS[:2], limits=short)
    assert tokens(sequential) == tokens(one.with_dialect("none").generate(PROMPTS[:2], limits=short))
    assert {trace.dialect for trace in sequential} == {"none"}


def test_what_cannot_be_used_is_said_before_anything_runs(fleet, on_ray):
    with pytest.raises(InputError, match="empty"):
        fleet.generate([PROMPTS[0], ""])
    with pytest.raises(InputError, match="cannot do lora"):
        fleet.generate(PROMPTS, SamplingParams(lora="x"))
    with pytest.raises(EngineError, match=r"no room for 9 engines within 1 s: they need 9 CPU of 2"):
        ParallelLLM(engine="torch", fleet=Fleet(engines=9, start_s=1))
    with pytest.raises(InputError, match="fleet has no field 'engine'"):
        ParallelLLM(engine="torch", fleet={"engine": 2})
    with pytest.raises(ModelError, match="no/such/model"):
        ParallelLLM("/no/such/model", engine="torch", fleet={"engines": 1, "cpus_per_engine": 0.1})


def test_a_trace_is_cancelled_while_it_runs_and_while_it_waits(fleet):
    started = []
    for event in fleet.stream_sync(PROMPTS[0], limits=Limits(forks=0)):
        if not started:
            started.append(event.trace)
            fleet.cancel(event.trace)
    assert event.trace.status == "cancelled"
    assert event.trace.id == started[0]
    assert fleet.kv_is_free()


def test_a_killed_engine_is_restarted_and_its_traces_run_again(fleet, expected):
    before = restarts(fleet)
    victim = members(fleet)[0].pid
    traces = fleet.generate(PROMPTS, SAMPLING, on_trace=After(3, lambda: kill(victim)))
    check_whole(traces, expected)
    assert restarts(fleet) == before + 1
    wait_until(lambda: len(fleet.session.engine.pool.actors.serving) == 2)
    assert not alive(victim)
    check_whole(fleet.generate(PROMPTS, SAMPLING), expected)


def test_a_stream_whose_engine_dies_says_so(fleet):
    events = fleet.stream_sync(PROMPTS[0])
    next(events)
    (busy,) = (each for each in members(fleet) if fleet.session.engine.pool.traces_on(each.number))
    kill(busy.pid)
    with pytest.raises(EngineError, match="died after it had streamed events"):
        list(events)
    wait_until(lambda: len(fleet.session.engine.pool.actors.serving) == 2)
    assert fleet.kv_is_free()


def test_an_engine_that_hangs_is_found_and_replaced(fleet, expected, caplog):
    victim = members(fleet)[1].pid
    with caplog.at_level(logging.WARNING):
        traces = fleet.generate(PROMPTS, SAMPLING, on_trace=After(1, lambda: kill(victim, signal.SIGSTOP)))
    check_whole(traces, expected)
    assert "no answer within 12 s: it hangs" in caplog.text
    wait_until(lambda: len(fleet.session.engine.pool.actors.serving) == 2)
    assert not alive(victim)


def test_all_engines_have_new_weights_and_so_has_one_that_is_restarted(fleet, expected, tmp_path):
    other = changed_weights(tmp_path / "other")
    fleet.update_weights(str(other))
    with ParallelLLM(engine="torch", limits=LIMITS) as alone:
        alone.update_weights(str(other))
        wanted = alone.generate(PROMPTS, SAMPLING)
    assert tokens(wanted) != tokens(expected)
    assert tokens(fleet.generate(PROMPTS, SAMPLING)) == tokens(wanted)
    kill(members(fleet)[0].pid)
    traces = fleet.generate(PROMPTS, SAMPLING)
    wait_until(lambda: len(fleet.session.engine.pool.actors.serving) == 2)
    traces += fleet.generate(PROMPTS, SAMPLING)
    assert tokens(traces) == 2 * tokens(wanted)
    assert {span.policy_version for trace in traces for thread in trace.threads for span in thread.spans} == {None, 1}

    cut = tmp_path / "cut"
    changed_weights(cut)
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((ModelError, EngineError)):
        fleet.update_weights(str(cut))
    assert tokens(fleet.generate(PROMPTS, SAMPLING)) == tokens(wanted)
    wait_until(lambda: len(fleet.session.engine.pool.actors.serving) == 2)
    fleet.update_weights(str(EMBEDDED))
    assert tokens(fleet.generate(PROMPTS, SAMPLING)) == tokens(expected)


def test_a_prompt_that_kills_its_engines_is_recorded_as_failed_and_the_others_finish(fleet, expected):
    prompt_ids = tuple(expected[4].prompt_ids)
    assert sum(tuple(trace.prompt_ids) == prompt_ids for trace in expected) == 2  # both samples of one prompt
    before = restarts(fleet)
    traces = fleet.with_dialect(Deadly, deadly=prompt_ids).generate(PROMPTS, SamplingParams(temperature=1.0, seed=5))
    assert [trace.status for trace in traces] == ["finished"] * 2 + ["failed"] + ["finished"] * 3
    assert traces[2].errors[0].startswith("EngineError: engines died while they ran it")
    assert tokens(traces[:2] + traces[3:]) == tokens(expected[:4:2] + expected[6::2])
    assert 2 <= restarts(fleet) - before <= 3


def test_a_leak_is_what_an_idle_engine_holds():
    assert leaks(Integrity(kv_is_free=True, memory=GROWTH + 1), 1) == []
    assert leaks(Integrity(kv_is_free=False, memory=0), 0) == ["holds KV"]
    assert leaks(Integrity(kv_is_free=True, memory=2 * GROWTH), 0) == ["has 4.0 GiB more memory than at first"]


def changed_weights(folder, noise=0.5):
    """The embedded model with noise on its weights, in standard deviations."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * parameter.std() * torch.randn_like(parameter) if parameter.ndim > 1 else 0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(folder)
    return folder
