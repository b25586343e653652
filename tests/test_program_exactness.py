"""Random programs are exact: every log-prob that an engine reported is transformers' under the layout of the trace."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.grammars import build
from parallel_reason import Limits, ParallelLLM, SamplingParams, layout
from parallel_reason.exactness import BOUND, compare, load_reference
from parallel_reason.trace import from_json
from tests.programs import PROGRAMS, play

SAMPLING = SamplingParams(temperature=1.0, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(str(tmp_path_factory.mktemp("model")), "qwen3", ["multiverse"], 2)


@pytest.fixture(scope="module")
def plain(folder):
    return load_reference(folder)


@pytest.fixture(scope="module")
def on_torch(folder):
    with ParallelLLM(folder, engine="torch", dialect="none") as llm:
        yield llm


@pytest.fixture(scope="module")
def on_vllm(folder):
    with ParallelLLM(folder, dialect="none", graft=True) as llm:
        yield llm


def check(llm, plain, programs):
    """Run programs at once, and hold their traces to the contract, to their own clocks and to their numbers."""
    clocks = {}

    async def program(thread):
        number = int(thread.problem[1:].replace("a", "0").replace("b", "1"), 2)
        clocks[number] = await play(thread, programs[number])

    prompts = ["a" + f"{number:b}".replace("0", "a").replace("1", "b") for number in range(len(programs))]
    traces = llm.run(program, prompts, SAMPLING)
    for number, trace in enumerate(traces):
        assert trace.status == "finished", trace.stop_reason
        assert compare(plain, trace).largest < BOUND
        assert trace.ledger.critical_path_tokens == clocks[number]
        assert from_json(trace.to_json()) == trace
    assert llm.kv_is_free()
    return traces


STEADY = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@settings(STEADY, max_examples=30)
@given(st.lists(PROGRAMS, min_size=4, max_size=4))
def test_random_programs_are_exact_on_torch(on_torch, plain, programs):
    check(on_torch, plain, programs)


@settings(STEADY, max_examples=4)
@given(st.lists(PROGRAMS, min_size=6, max_size=6))
def test_random_programs_are_exact_on_vllm(on_vllm, plain, programs):
    check(on_vllm, plain, programs)


def written_logprobs(plain, trace, count):
    """Log-probs under the layout of the ``count`` tokens that were written last in the root, in plain transformers."""
    row = layout(trace)
    hidden = torch.finfo(torch.float32).min
    with torch.inference_mode():
        logits = plain(
            input_ids=torch.from_numpy(row.ids)[None],
            position_ids=torch.from_numpy(row.positions)[None],
            attention_mask=torch.where(torch.from_numpy(row.mask()), 0.0, hidden)[None, None],
        ).logits[0]
    places = np.arange(len(row.ids))[-count:]
    every = logits[torch.from_numpy(row.previous[places])].log_softmax(-1)
    return every.gather(1, torch.from_numpy(row.ids[places])[:, None])[:, 0].tolist()


@pytest.mark.parametrize("engine", ["on_torch", "on_vllm"])
@pytest.mark.parametrize("rule", ["graft", "relinearise", "message"])
@pytest.mark.parametrize("count", [3, 12])
def test_scores_are_those_of_transformers_after_every_join(request, plain, engine, rule, count):
    llm, seen = request.getfixturevalue(engine), []
    ids = [10, 12, 11, 14, 9, 8, 22, 21, 20, 13, 12, 11][:count]

    async def program(t):
        threads = t.fork([[12], [13, 14]])
        await threads.sample(6)
        t.join(threads, rule, [9])
        seen.extend(await t.scores(ids))
        t.write(ids)

    [trace] = llm.run(program, ["ab"], SAMPLING)
    assert trace.status == "finished", trace.stop_reason
    assert seen == pytest.approx(written_logprobs(plain, trace, count), abs=BOUND)


def test_a_graft_computes_nothing_again_on_vllm(on_vllm):
    async def program(t):
        for _ in range(3):
            threads = t.fork([[12], [13, 14], [9]])
            await threads.sample(20, ignore_eos=True)
            t.join(threads, "graft")
            await t.sample(5, ignore_eos=True)

    [trace] = on_vllm.run(program, ["ab"], SAMPLING)
    assert trace.ledger.sampled_tokens == 3 * (3 * 20 + 5)
    assert trace.ledger.recomputed_tokens == 0


def test_a_stream_that_is_left_changes_nothing_of_what_comes(on_torch):
    """The engine ran ahead by an unknown number of tokens; the thread has those that were read, and the same noise."""

    async def cut(t):
        async for _ in t.stream(200, ignore_eos=True):
            if t.sampled_tokens == 7:
                break
        t.write([9])
        return await t.sample(9, ignore_eos=True)

    async def whole(t):
        await t.sample(7, ignore_eos=True)
        t.write([9])
        return await t.sample(9, ignore_eos=True)

    one, other = (on_torch.run(program, ["ab"], SAMPLING)[0] for program in (cut, whole))
    assert [span.ids for span in one.root.spans] == [span.ids for span in other.root.spans]


def test_limits_bound_random_programs(on_torch):
    async def program(t):
        threads = t.fork(4)
        await threads.sample(ignore_eos=True)
        t.join(threads[:2], "graft")
        await t.sample(ignore_eos=True)

    limits = Limits(tokens=60, tokens_per_thread=30, threads=2)
    [trace] = on_torch.run(program, ["ab"], SAMPLING, limits)
    assert trace.ledger.sampled_tokens == 60
    assert {thread.stop_reason for thread in trace.threads[1:]} == {"limits.tokens=60"}
