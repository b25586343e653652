"""The scripted engine keeps to the protocol of an engine, so that what runs on it runs on the others."""

import asyncio
import math
from dataclasses import replace

import pytest

from benchmarks.grammars import tokenizer
from parallel_reason import SamplingParams
from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.errors import EngineError, InputError

TOKENS = tokenizer(["<stop>"])
EOS = TOKENS.eos_token_id


def ids(text):
    return TOKENS.encode(text, add_special_tokens=False)


def request(name="r", *, most=50, **options):
    return EngineRequest(name, ids("p"), most, label="0", **options)


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({}, "ab", "stop"),  # the text of one request
        ({"first_draw": 2}, "c<stop>d<eos>", "stop"),  # the next text, and the end of text
        ({"first_draw": 2, "stop_ids": frozenset(ids("<stop>"))}, "c<stop>", "stop"),
        ({"first_draw": 2, "stop_texts": ("c<s",)}, "c<stop>", "stop"),
        ({"first_draw": 4}, "d<eos>", "stop"),  # a text that a stop cut goes on
        ({"first_draw": 9}, "<eos>", "stop"),
        ({"most": 1}, "a", "length"),
        ({"most": 0}, "", "length"),
    ],
)
def test_texts_are_written_in_turn_and_end_as_on_any_engine(options, text, reason):
    engine = ScriptedEngine.from_texts(TOKENS, {"0": ["ab", "c<stop>d"]})
    output = asyncio.run(engine.generate(request(**options)))
    assert (output.ids, output.finish_reason) == (ids(text), reason)
    assert output.logprobs == [0.0] * len(output.ids)
    assert (output.prefilled_tokens, output.cached_tokens) == (1, 0)
    assert engine.outputs == [output]


def test_the_context_bounds_a_request():
    engine = ScriptedEngine(TOKENS, lambda request, sampled: ids("x"), context=4)
    assert asyncio.run(engine.generate(request())).ids == ids("xxx")
    with pytest.raises(InputError, match="between 1 and 4 ids, not 5"):
        asyncio.run(engine.generate(EngineRequest("r", ids("ppppp"), 1)))


@pytest.mark.parametrize("stream", [True, False])
def test_tokens_are_reported_one_by_one_or_the_first_and_then_the_rest(stream):
    deltas, reported = [], []

    def policy(request, sampled):
        reported.append(len(deltas))
        return [*ids("abcd"), EOS][len(sampled) :][:1]

    engine = ScriptedEngine(TOKENS, policy)
    one = request(stream=stream, sampling=SamplingParams(logprobs=1))
    output = asyncio.run(engine.generate(one, deltas.append))
    assert reported == ([0, 1, 2, 3, 4] if stream else [0, 1, 1, 1, 1])
    assert [token for delta in deltas for token in delta.ids] == output.ids == [*ids("abcd"), EOS]
    assert output.top_logprobs == [{token: 0.0} for token in output.ids]


def test_an_abort_ends_requests_that_wait_with_what_they_have():
    async def aborted():
        delay = {"never": math.inf, "slow": 0.01, "other": 0}
        engine = ScriptedEngine(TOKENS, lambda request, sampled: ids("x"), delay_s=lambda one: delay[one.id])
        some = asyncio.Event()
        never = asyncio.create_task(engine.generate(request("never")))
        slow = asyncio.create_task(engine.generate(request("slow"), lambda delta: some.set()))
        other = asyncio.create_task(engine.generate(request("other", most=20)))
        await some.wait()
        await engine.abort(["never", "slow", "unknown"])
        async with asyncio.timeout(10):  # none hangs
            outputs = [await never, await slow, await other]
        assert await engine.kv_is_free()
        return outputs

    never, slow, other = asyncio.run(aborted())
    assert (never.ids, never.prefilled_tokens, never.finish_reason) == ([], 0, "abort")
    assert (len(slow.ids), slow.prefilled_tokens, slow.finish_reason) == (1, 1, "abort")
    assert (len(other.ids), other.finish_reason) == (20, "length")


def test_what_a_policy_raises_fails_its_request_alone():
    def policy(request, sampled):
        if request.id == "bad":
            raise RuntimeError("no such token")
        return [EOS]

    async def both():
        engine = ScriptedEngine(TOKENS, policy)
        ends = await asyncio.gather(*map(engine.generate, map(request, ("bad", "good"))), return_exceptions=True)
        assert await engine.kv_is_free()
        return ends

    bad, good = asyncio.run(both())
    assert isinstance(bad, RuntimeError)
    assert good.ids == [EOS]


def test_a_closed_engine_fails_what_runs_and_what_comes():
    async def closed():
        engine = ScriptedEngine(TOKENS, lambda request, sampled: ids("x"), delay_s=lambda one: math.inf)
        running = asyncio.create_task(engine.generate(request()))
        await asyncio.sleep(0)
        await engine.close()
        for work in (running, engine.generate(request())):
            with pytest.raises(EngineError, match="was closed"):
                await work

    asyncio.run(closed())


def test_kv_is_counted_and_is_only_good_for_the_tokens_it_is_of():
    async def held():
        engine = ScriptedEngine.from_texts(TOKENS, {"0": ["ab"]})
        kv = (await engine.generate(request(most=2, keep_kv=True))).kv
        part = kv[:2]
        assert (len(kv), len(part)) == (3, 2)
        after = EngineRequest("after", ids("pabc"), 1, held=(kv,))
        assert (await engine.generate(after)).cached_tokens == 3
        for change in ({"ids": ids("paxc")}, {"positions": [0, 1, 3, 4]}):
            with pytest.raises(InputError, match="KV of other tokens, or positions"):
                await engine.generate(replace(after, **change))
        kv.release()
        assert not await engine.kv_is_free()
        part.release()
        assert await engine.kv_is_free()
        with pytest.raises(InputError, match="released"):
            await engine.generate(after)

    asyncio.run(held())
