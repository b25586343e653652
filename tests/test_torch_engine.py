"""Requests to the torch engine, on a model that never ends by itself: its KV by count, draws, stops, aborts, faults."""

import asyncio
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch

from parallel_reason.engines.torch import TorchEngine
from parallel_reason.errors import EngineError, InputError, ModelError
from tests.house import House, ask
from tests.letters import WORDS, build_endless, words


def start(folder, **options):
    return House(folder, TorchEngine.start(folder, device="cpu", **options))


@pytest.fixture(scope="module")
def endless_folder(tmp_path_factory):
    return build_endless("Llama", tmp_path_factory.mktemp("endless"))


@pytest.fixture(scope="module")
def endless(endless_folder):
    house = start(endless_folder)
    yield house
    house.close()


@pytest.fixture(autouse=True)
def all_kv_comes_back(request):
    yield
    if "endless" in request.fixturenames:
        house = request.getfixturevalue("endless")
        assert house.run(house.engine.kv_is_free())
        assert house.engine.kv_bytes() == 0


def test_a_family_with_a_long_prefix_and_private_parts_of_all_lengths(endless):
    prefix = words(4, 200)
    (parent,) = endless.all(ask("parent", prefix, 0, keep=True))
    children = [ask(f"child {n}", prefix + words(n, 1 + 5 * n), 12, held=(parent.kv,)) for n in range(5)]
    strangers = [ask(f"stranger {n}", words(20 + n, 3 + 60 * n), 12) for n in range(3)]
    requests = [*children, *strangers]
    for request, decoded in zip(requests, endless.all(*requests), strict=True):
        endless.check(request.ids, decoded)
    parent.kv.release()


def test_slices_share_slots_and_are_released_on_their_own(endless):
    ids = words(10, 40)
    (whole,) = endless.all(ask("whole", ids, 0, keep=True))
    each = endless.engine.kv_bytes() // 40
    head, tail = whole.kv[:30], whole.kv[30:]
    assert (len(head), len(tail)) == (30, 10)
    assert endless.engine.kv_bytes() == 40 * each
    whole.kv.release()
    whole.kv.release()
    assert endless.engine.kv_bytes() == 40 * each
    tail.release()
    assert endless.engine.kv_bytes() == 30 * each
    request = ask("goes on", [*ids[:30], 4], 8, held=(head,))
    endless.check(request.ids, endless.all(request)[0])
    head.release()
    with pytest.raises(InputError, match="released"):
        endless.all(request)


def test_held_kv_may_be_released_once_the_request_has_begun(endless):
    ids = words(11, 80)
    (parent,) = endless.all(ask("parent", ids, 0, keep=True))

    async def orphan():
        task = asyncio.create_task(endless.engine.generate(ask("orphan", [*ids, 3], 10, held=(parent.kv,))))
        await asyncio.sleep(0)
        parent.kv.release()
        return await task

    endless.check([*ids, 3], endless.run(orphan()))


@pytest.mark.parametrize("keep", [False, True])
def test_continuation_with_no_new_ids(endless, keep):
    ids = words(12, 70)
    (parent,) = endless.all(ask("parent", ids, 0, keep=True))
    assert (parent.ids, parent.reason, len(parent.kv)) == ([], "length", 70)
    both = endless.all(*(ask(f"same {n}", ids, 9, held=(parent.kv,), keep=keep) for n in range(2)))
    for decoded in both:
        endless.check(ids, decoded)
        assert decoded.cached_tokens == 70
        if keep:
            (more,) = endless.all(ask("more", ids + decoded.ids, 5, held=(decoded.kv,)))
            endless.check(ids + decoded.ids, more)
            decoded.kv.release()
    parent.kv.release()


def test_joining_kv_computes_nothing(endless):
    ids = words(13, 30)
    (whole,) = endless.all(ask("whole", ids, 0, keep=True))
    head, tail = whole.kv[:10], whole.kv[10:]
    before = endless.engine.kv_bytes()
    (joined,) = endless.all(ask("joined", ids, 0, held=(head, tail), keep=True))
    assert endless.engine.kv_bytes() == before
    assert len(joined.kv) == 30
    for kv in (whole.kv, head, tail, joined.kv):
        kv.release()


def test_32_children_hold_their_prefix_once(endless):
    prefix = words(14, 2000)
    (parent,) = endless.all(ask("parent", prefix, 0, keep=True))
    each = endless.engine.kv_bytes() / 2000
    children = endless.all(*(ask(f"{n}", [*prefix, 1 + n], 8, held=(parent.kv,), keep=True) for n in range(32)))
    ideal = each * (2000 + 32 * 9)
    assert ideal <= endless.engine.kv_bytes() <= 1.05 * ideal
    parent.kv.release()
    for child in children:
        child.kv.release()


def test_held_kv_outlives_the_growth_of_the_pool(endless_folder):
    house = start(endless_folder)
    ids = words(29, 90)
    (parent,) = house.all(ask("parent", ids, 0, keep=True))
    before = house.engine._pool.keys[0].shape[1]
    large, child = house.all(ask("large", words(30, 2500), 2), ask("child", [*ids, 7], 20, held=(parent.kv,)))
    assert house.engine._pool.keys[0].shape[1] > before
    house.check(words(30, 2500), large)
    house.check([*ids, 7], child)
    house.close()


def test_low_precision_stays_close(endless_folder):
    house = start(endless_folder, dtype="bfloat16")
    prefix = words(28, 90)
    (parent,) = house.all(ask("parent", prefix, 0, keep=True))
    children = [ask(f"{n}", prefix + words(n, 1 + n), 8, held=(parent.kv,)) for n in range(3)]
    for child, decoded in zip(children, house.all(*children), strict=True):
        every = house.reference(child.ids + decoded.ids)[len(child.ids) - 1 : -1]
        chosen = every.gather(1, torch.tensor(decoded.ids)[:, None])[:, 0]
        np.testing.assert_allclose(decoded.logprobs, chosen, atol=0.2)
    house.close()


def test_score_of_one_token_is_empty(endless):
    assert endless.run(endless.engine.score([4])) == []


def test_a_seed_repeats_in_any_company(endless):
    def draw(seed, name):
        return ask(name, words(16, 5), 30, temperature=1.0, top_p=0.9, top_k=40, seed=seed)

    (alone,) = endless.all(draw(5, "alone"))
    among, other, *_ = endless.all(
        draw(5, "among"), draw(6, "other"), *(ask(f"{n}", words(n, 40), 25, temperature=0.7) for n in range(5))
    )
    assert alone.ids == among.ids != other.ids
    first, second = endless.all(draw(None, "first"), draw(None, "second"))
    assert first.ids != second.ids


def test_draws_follow_the_probabilities(endless):
    ids, draws = words(17, 6), 1500
    logprobs = endless.reference(ids)[-1]
    hot = (logprobs / 1.5).softmax(-1)
    top = hot.topk(5)
    expected = dict(zip(top.indices.tolist(), (top.values / top.values.sum()).tolist(), strict=True))
    requests = [ask(f"{n}", ids, 1, temperature=1.5, top_k=5, seed=n) for n in range(draws)]
    decoded = endless.all(*requests)
    counts = Counter(d.ids[0] for d in decoded)
    assert set(counts) <= set(expected)
    for token, share in expected.items():
        assert abs(counts[token] / draws - share) < 5 * (share * (1 - share) / draws) ** 0.5
    for one in decoded[:50]:  # reported at temperature 1, before any truncation
        assert one.logprobs[0] == pytest.approx(logprobs[one.ids[0]].item(), abs=1e-4)
    nucleus = endless.all(*(ask(f"{n}", ids, 1, temperature=1.5, top_p=1e-6, seed=n) for n in range(20)))
    assert {d.ids[0] for d in nucleus} == {logprobs.argmax().item()}


def test_stops(endless):
    ids = words(18, 5)
    (free,) = endless.all(ask("free", ids, 40))
    assert (len(free.ids), free.reason) == (40, "length")
    text = "".join(WORDS[token] for token in free.ids)
    by_id, by_text, unseen = endless.all(
        ask("id", ids, 40, stop=(free.ids[7],)),
        ask("text", ids, 40, stop_texts=("nowhere", text[4:9])),
        ask("unseen", ids, 40, stop_texts=("no such text",)),
    )
    first = free.ids.index(free.ids[7]) + 1
    assert (by_id.ids, by_id.reason) == (free.ids[:first], "stop")
    ends = text.index(text[4:9]) + 5
    assert (by_text.ids, by_text.reason) == (free.ids[:ends], "stop")
    assert unseen.ids == free.ids


def test_the_context_bounds_a_request(endless_folder):
    house = start(endless_folder, context=24)
    exact, full = house.all(ask("exact", words(20, 20), 50), ask("full", words(20, 24), 50))
    assert (len(exact.ids), exact.reason) == (4, "length")
    assert (full.ids, full.reason) == ([], "length")
    with pytest.raises(EngineError, match="context of 24"):
        house.all(ask("over", words(20, 25), 1))
    house.close()


@pytest.mark.parametrize("live", [True, False])
def test_tokens_are_reported_as_they_come(endless, live):
    reports = []
    request = ask("watched", words(21, 5), 12, live=live)
    decoded = endless.run(endless.engine.generate(request, reports.append))
    assert list(chain(*reports)) == decoded.ids
    assert [len(report) for report in reports] == ([1] * 12 if live else [1, 11])
    assert decoded.first_token_s > 0


def test_an_error_of_a_watcher_ends_its_request_alone(endless):
    def watch(ids):
        raise ZeroDivisionError

    async def both():
        return await asyncio.gather(
            endless.engine.generate(ask("watched", words(22, 5), 12), watch),
            endless.engine.generate(ask("other", words(22, 5), 12)),
            return_exceptions=True,
        )

    broken, whole = endless.run(both())
    assert isinstance(broken, ZeroDivisionError)
    assert len(whole.ids) == 12


def test_an_abort_returns_what_there_is(endless):
    async def cut():
        seen, started = [], asyncio.Event()

        def watch(ids):
            seen.extend(ids)
            if len(seen) >= 5:
                started.set()

        task = asyncio.create_task(
            endless.engine.generate(ask("cut", words(23, 64), 3000, live=True, keep=True), watch)
        )
        other = asyncio.create_task(endless.engine.generate(ask("other", words(23, 9), 40)))
        await started.wait()
        await endless.engine.abort("cut")
        await endless.engine.abort("unknown")
        return seen, await task, await other

    seen, decoded, other = endless.run(cut())
    assert (decoded.reason, decoded.kv) == ("abort", None)
    assert 5 <= len(decoded.ids) == len(decoded.logprobs) < 3000
    assert decoded.ids == seen
    assert len(other.ids) == 40


def test_a_cancelled_task_frees_its_kv(endless):
    async def drop():
        task = asyncio.create_task(endless.engine.generate(ask("dropped", words(24, 64), 3000)))
        await asyncio.sleep(0.05)
        assert not await endless.engine.kv_is_free()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return await endless.engine.kv_is_free()

    assert endless.run(drop())


def test_a_full_pool_fails_who_asks_and_no_other(endless_folder):
    house = start(endless_folder, kv_tokens=100)

    async def crowd():
        return await asyncio.gather(
            house.engine.generate(ask("small", words(25, 40), 20)),
            house.engine.generate(ask("large", words(26, 70), 20)),
            return_exceptions=True,
        )

    small, large = house.run(crowd())
    house.check(words(25, 40), small)
    assert isinstance(large, EngineError)
    assert "kv_tokens" in str(large)
    house.check(words(26, 70), house.all(ask("again", words(26, 70), 20))[0])
    assert house.run(house.engine.kv_is_free())
    house.close()


def test_a_step_that_breaks_fails_its_requests_and_the_engine_goes_on(endless, monkeypatch):
    def out_of_memory(**inputs):
        raise torch.OutOfMemoryError("out of memory\nand more")

    async def both():
        requests = (endless.engine.generate(ask(f"{n}", words(n, 9), 9)) for n in range(2))
        return await asyncio.gather(*requests, return_exceptions=True)

    with monkeypatch.context() as patch:
        patch.setattr(endless.engine._batch.model, "net", out_of_memory)
        failures = endless.run(both())
    assert [str(failure) for failure in failures] == ["engine 'torch' failed in a step: out of memory"] * 2
    assert all(isinstance(failure, EngineError) for failure in failures)
    assert endless.run(endless.engine.kv_is_free())
    assert [len(decoded.ids) for decoded in endless.run(both())] == [9, 9]


def test_close_ends_what_runs(endless_folder):
    house = start(endless_folder)

    async def end():
        task = asyncio.create_task(house.engine.generate(ask("endless", words(27, 9), 4000)))
        await asyncio.sleep(0.05)
        await house.engine.close()
        return await asyncio.gather(task, return_exceptions=True)

    (failure,) = house.run(end())
    assert isinstance(failure, EngineError)
    with pytest.raises(EngineError, match="closed"):
        house.all(ask("late", [1], 1))
    house.close()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask("empty", [], 1), "at least one"),
        (ask("foreign", [1, 500], 1), "500"),
        (ask("short", [1, 2], 1, positions=[0]), "1 positions"),
    ],
)
def test_requests_that_cannot_be_run_are_refused(endless, request_, message):
    with pytest.raises(InputError, match=message):
        endless.all(request_)


def test_start_refuses_what_it_cannot_use(endless_folder, tmp_path):
    for options, error, match in (
        ({"model": str(tmp_path)}, ModelError, "config.json"),
        ({"model": str(tmp_path / "none")}, ModelError, "no model"),
        ({"model": endless_folder, "dtype": "float99"}, InputError, "float99"),
        ({"model": endless_folder, "device": "nowhere"}, InputError, "nowhere"),
        ({"model": endless_folder, "context": 0}, InputError, "context"),
    ):
        with pytest.raises(error, match=match):
            asyncio.run(TorchEngine.start(**options))
