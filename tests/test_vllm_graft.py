"""Grafts on vLLM, request by request: against transformers, under pressure, after cancels and resets, and by count."""

import asyncio
import contextlib
import gc
import random

import pytest
import vllm
from vllm import SamplingParams, TokensPrompt

from parallel_reason.engines.vllm.graft import compat
from parallel_reason.engines.vllm.graft.messages import GraftRequest, PinnedTokens
from parallel_reason.errors import EngineError, InputError, ModelError
from tests.house import ask, preemptions, scheduling_ahead
from tests.joining import AbortError, Joining
from tests.letters import build_endless, words
from tests.other_weights import other_weights

BLOCKS = 40  # of 32 tokens


@pytest.fixture(scope="module", params=[False, True], ids=["in step", "ahead"])
def house(request, tmp_path_factory):
    """A model that never ends by itself, in so little memory that a few joins at once do not fit; and once more on a
    vLLM that schedules a step ahead, as it does on GPUs."""
    if request.param and vllm.__version_tuple__[:2] < compat.ASYNC_SCHEDULING:
        pytest.skip("grafts are refused on this vLLM while it schedules ahead")
    folder = build_endless("Qwen3", tmp_path_factory.mktemp("endless"), head_dim=32)
    with scheduling_ahead() if request.param else contextlib.nullcontext():
        house = Joining(folder, context=640, num_gpu_blocks_override=BLOCKS, disable_log_stats=False)
    assert house.engine.llm.vllm_config.scheduler_config.async_scheduling == request.param
    yield house
    house.close()


@pytest.fixture(autouse=True)
def nothing_is_held_in_the_end(house):
    yield
    assert house.run(house.engine.kv_is_free())
    assert len(house.engine.graft_client.references) == 0


def test_forks_and_joins_compute_nothing_again(house):
    async def rounds():
        prompt = words(1, 75)
        parent = await house.engine.generate(ask("parent", prompt, 9, keep_kv=True))
        assert len(parent.kv) in (83, 84)  # the newest token's KV is there if a step ran ahead
        ids = (prompt + parent.ids)[: len(parent.kv)]
        child = await house.engine.generate(ask("child", [*ids, 5], 4, held=(parent.kv,)))
        parent.kv.release()
        assert child.cached_tokens == len(ids)
        house.check([*ids, 5], child)
        joined_ids, joined = await house.join(prompt, (17, 40, 3), 20, 30)
        assert joined.cached_tokens == len(joined_ids) - 2
        return joined_ids

    house.run(rounds())


def test_plain_requests_never_see_what_was_grafted(house):
    async def both():
        prompt = words(2, 64)
        await house.engine.generate(ask("before", words(2, 100), 1))
        ids, joined = await house.join(prompt, (45, 31), 50, 60)
        whole = ids + joined.ids
        plain = await house.engine.generate(ask("plain", whole, 12))
        house.check(whole, plain)
        assert plain.cached_tokens <= len(prompt) + 46
        return plain

    house.run(both())


def test_pins_that_a_reset_took_are_computed_again(house):
    async def reset():
        await house.engine.llm.reset_prefix_cache(reset_connector=True)

    before = house.engine.graft_client.repeated
    house.run(house.join(words(3, 70), (20, 37), 70, 20, between=reset))
    assert house.engine.graft_client.repeated > before


@pytest.mark.parametrize("cancelled", [(), (0,), (0, 2)])
def test_blocks_that_could_not_be_copied_are_never_found_again(house, cancelled):
    tail = 70  # more than two blocks that each request computes behind the same join

    async def crowd():
        ids, positions, mask, held = await house.family(words(8, 70), (20, 37), 30, suffix=words(0, tail))

        def start(number):
            own = [*ids[:-tail], *words(20 + number, tail)]
            return asyncio.create_task(house.draw(own, 4, number, mask=mask, positions=positions, held=held))

        await house.engine.llm.pause_generation(mode="keep", clear_cache=False)
        tasks = [start(number) for number in range(4)]
        await asyncio.sleep(0.1)
        await house.engine.llm.reset_prefix_cache(reset_connector=True)
        await house.engine.llm.resume_generation()
        await asyncio.sleep(0)
        for number in cancelled:
            tasks[number].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [number for number, end in enumerate(ends) if isinstance(end, asyncio.CancelledError)] == [*cancelled]
        again = await asyncio.gather(*map(start, range(4)))
        for kv in held:
            kv.release()
        return [end for end in (*ends, *again) if isinstance(end, BaseException)]

    before = house.engine.graft_client.repeated
    assert len(house.run(crowd())) == len(cancelled)
    assert house.engine.graft_client.repeated > before


def test_new_weights_hold_for_what_is_held_and_for_what_runs(house, tmp_path):
    old, plain = house.engine.model, house.plain
    other = other_weights(old, plain, tmp_path)
    first = house.engine.policy_version

    async def swap(folder, reference):
        running = asyncio.create_task(house.engine.generate(ask("running", words(6, 50), 400)))
        await asyncio.sleep(0.05)
        await house.engine.update_weights(folder)
        house.plain = reference
        return await running

    assert house.run(swap(str(tmp_path), other)).finish_reason == "length"
    _, joined = house.run(house.join(words(3, 70), (20, 37), 70, 20, between=lambda: swap(old, plain)))
    assert joined.policy_versions == [first + 2] * 20
    house.run(house.join(words(3, 70), (20, 37), 70, 20))
    with pytest.raises(ModelError, match="no model '/no/model'"):
        house.run(house.engine.update_weights("/no/model"))
    assert house.engine.policy_version == first + 2


def test_a_seeded_join_that_loses_its_pins_in_mid_run_samples_the_same_tokens(house):
    async def join(lose):
        ids, positions, _, held = await house.family(words(7, 70), (20, 37), 70)
        started = asyncio.Event()
        request = ask(
            house.name(), ids, 300, temperature=1.0, seed=7, stream=True, positions=positions, held=held, first_draw=9
        )
        task = asyncio.create_task(house.engine.generate(request, lambda delta: started.set()))
        await started.wait()
        if lose:
            await house.engine.update_weights(house.engine.model)
        output = await task
        for kv in held:
            kv.release()
        return output

    first, repeated = house.engine.policy_version, house.engine.graft_client.repeated
    whole, cut = house.run(join(lose=False)), house.run(join(lose=True))
    assert house.engine.graft_client.repeated > repeated
    assert cut.ids == whole.ids
    assert sorted(set(cut.policy_versions)) == [first, first + 1]


def test_seeded_requests_that_are_preempted_sample_the_same_tokens(house):
    def requests():
        return [ask(house.name(), words(n, 50), 300, temperature=1.0, seed=n) for n in range(10)]

    alone = [house.all(request)[0].ids for request in requests()]
    before = preemptions()
    assert [output.ids for output in house.all(*requests())] == alone
    assert preemptions() > before


def test_joins_that_do_not_fit_side_by_side_lose_blocks_and_pins_and_are_still_exact(house):
    async def crowd():
        await asyncio.gather(*(house.join(words(n, 90), (60, 61, 62), 100 + 10 * n, 150) for n in range(8)))

    before, repeated = preemptions(), house.engine.graft_client.repeated
    house.run(crowd())
    assert preemptions() > before
    assert house.engine.graft_client.repeated > repeated


def test_a_join_that_cannot_fit_beside_its_children_says_so(house):
    async def huge():
        with pytest.raises(EngineError, match="out of KV memory"):
            await house.join(words(4, 20), (80,) * 7, 40, 4)

    house.run(huge())


@pytest.mark.parametrize("seed", range(4))
def test_aborts_and_cancels_leave_nothing_behind_and_the_others_exact(house, seed):
    dice = random.Random(seed)
    fates = dice.sample(["cancel"] * 3 + ["abort"] * 3 + ["live"] * 2, 8)

    async def one(number, fate):
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        striking, started = [], 0
        since = dice.randrange(6)  # of its six requests

        def cue(name):
            nonlocal started
            started += 1
            if started > since and fate != "live":
                loop.call_later(dice.random() * 0.02, strike, name)

        def strike(name):
            if fate == "cancel":
                task.cancel()
            else:
                striking.append(loop.create_task(house.engine.abort([name])))

        return await house.join(words(number, 40), (30, 20), 10 * number, 40, cue=cue)

    async def chaos():
        return await asyncio.gather(*(one(*lot) for lot in enumerate(fates)), return_exceptions=True)

    ends = {"cancel": asyncio.CancelledError, "abort": AbortError, "live": tuple}
    assert [type(end) for end in house.run(chaos())] == [ends[fate] for fate in fates]
    gc.collect()  # what a cancelled task held goes with it


def test_what_cannot_be_grafted_is_refused(house):
    async def refuse():
        kv = (await house.engine.generate(ask("kept", words(5, 40), 0, keep_kv=True))).kv
        assert len(kv) == 40
        two = kv[:20], kv[10:30]
        with pytest.raises(InputError, match="at least one id"):
            await house.engine.generate(ask("all", words(5, 40), 1, held=two))
        with pytest.raises(InputError, match="40 tokens, but has 20 ids"):
            await house.engine.generate(ask("short", words(5, 20), 1, held=(kv,)))
        again = await house.engine.generate(ask("again", words(5, 40), 3, held=(kv,)))
        house.check(words(5, 40), again)
        for one in (kv, *two):
            one.release()
            one.release()
        with pytest.raises(InputError, match="released"):
            await house.engine.generate(ask("released", words(5, 41), 1, held=(kv,)))

    house.run(refuse())


GARBAGE = [
    {},
    {"do_remote_prefill": True},
    {"graft_request": "no JSON"},
    {"graft_request": {"floor": 0}},
    {"graft_request": '{"tokens": [["pin", 0, "20"]]}'},
    {"graft_request": '{"tokens": [["pin", 5, 5]]}'},
    {"graft_request": '{"floor": 9}'},
    {"graft_request": '{"unknown": 1}'},
    {"release_pins": '{"names": "all"}'},
    GraftRequest(tokens=[PinnedTokens("pin", 0, 1000)]).parameters(),
]


@pytest.mark.parametrize("parameters", GARBAGE, ids=range(len(GARBAGE)))
def test_a_message_that_is_not_valid_fails_its_request_alone(house, parameters):
    async def send():
        params = SamplingParams(max_tokens=5, extra_args={"kv_transfer_params": parameters})
        other = asyncio.create_task(house.engine.generate(ask("other", words(9, 40), 30)))
        prompt = TokensPrompt(prompt_token_ids=words(9, 40))
        outputs = [output async for output in house.engine.llm.generate(prompt, params, "invalid")]
        house.check(words(9, 40), await other)
        return outputs[-1].outputs[0]

    output = house.run(send())
    assert output.finish_reason == "error"
    assert not output.token_ids
