"""The vLLM engine alone: cached prefixes, seeds, aborts, and KV that comes back."""

import asyncio

import pytest

from parallel_reason import SamplingParams
from parallel_reason.engines.base import Decode
from parallel_reason.errors import EngineError

NEVER = frozenset()


def request(name, ids, tokens, *, temperature=0.0, seed=None, live=False, stop=NEVER):
    return Decode(name, ids, tokens, stop, SamplingParams(temperature=temperature), seed=seed, live=live)


def test_children_hit_every_full_block_of_their_parents_prefix(soup):
    prefix = [10 + n % 20 for n in range(130)]

    async def fork():
        parent = await soup.engine.generate(request("parent", prefix, 8, stop=frozenset({0})))
        seen = prefix + parent.ids
        children = [soup.engine.generate(request(f"child {n}", [*seen, 10 + n], 4)) for n in range(8)]
        return parent, seen, await asyncio.gather(*children)

    assert soup.run(soup.engine.kv_is_free())
    parent, seen, children = soup.run(fork())
    assert parent.cached_tokens == 0
    assert {child.cached_tokens for child in children} == {len(seen) // 32 * 32}


def test_a_seed_repeats_and_another_does_not(soup):
    async def draw(name, seed):
        return (await soup.engine.generate(request(name, [10, 11], 40, temperature=1.0, seed=seed))).ids

    assert soup.run(draw("a", 5)) == soup.run(draw("b", 5))
    assert soup.run(draw("c", 5)) != soup.run(draw("d", 6))


def test_a_stop_text_that_is_a_special_token_stops(soup):
    sep = soup.engine.tokenizer.get_vocab()["<sep>"]
    drawn = SamplingParams(temperature=1.0)

    async def ask():
        requests = (Decode(f"{n}", [10, 11], 60, NEVER, drawn, ("<sep>",), seed=n) for n in range(20))
        return await asyncio.gather(*map(soup.engine.generate, requests))

    written = [decoded.ids for decoded in soup.run(ask()) if sep in decoded.ids]
    assert written
    assert all(ids.index(sep) == len(ids) - 1 for ids in written)


def test_an_aborted_request_returns_what_it_has_and_frees_its_kv(soup):
    async def cut():
        seen = []
        started = asyncio.Event()

        def on_tokens(ids):
            seen.extend(ids)
            if len(seen) >= 5:
                started.set()

        ids = [10 + n % 20 for n in range(64)]
        task = asyncio.create_task(
            soup.engine.generate(request("cut", ids, 400, temperature=1.0, seed=1, live=True, stop=NEVER), on_tokens)
        )
        await asyncio.wait({task, asyncio.ensure_future(started.wait())}, return_when=asyncio.FIRST_COMPLETED)
        await soup.engine.abort("cut")
        return seen, await task

    seen, decoded = soup.run(cut())
    if decoded.reason == "abort":  # the model's own end may come first
        assert 5 <= len(decoded.ids) < 400
    assert decoded.ids == seen
    assert len(decoded.logprobs) == len(decoded.ids)
    assert soup.run(soup.engine.kv_is_free())


@pytest.mark.parametrize("ids", [[1 << 30], [10] * 600], ids=["no such token", "longer than the window"])
def test_what_vllm_refuses_is_an_error_of_that_request(soup, ids):
    with pytest.raises(EngineError, match="engine 'vllm' failed"):
        soup.run(soup.engine.generate(request("refused", ids, 4)))
    with pytest.raises(EngineError, match="engine 'vllm' failed"):
        soup.run(soup.engine.score(ids))
    assert soup.run(soup.engine.kv_is_free())


def test_an_abort_before_the_request_reaches_vllm_is_not_lost(soup):
    async def race():
        ids = [10 + n % 20 for n in range(64)]
        tasks = [
            asyncio.create_task(soup.engine.generate(request(f"race {n}", ids, 400, temperature=1.0, seed=n)))
            for n in range(20)
        ]
        await asyncio.sleep(0)
        for n in range(20):
            await soup.engine.abort(f"race {n}")
        return await asyncio.gather(*tasks)

    decoded = soup.run(race())
    assert all(d.reason == "abort" or 0 in d.ids for d in decoded)
    assert soup.run(soup.engine.kv_is_free())


def test_a_cancelled_task_frees_its_kv(soup):
    async def drop():
        task = asyncio.create_task(soup.engine.generate(request("dropped", [10] * 64, 400, temperature=1.0, seed=2)))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.2)
        return await soup.engine.kv_is_free()

    assert soup.run(drop())
