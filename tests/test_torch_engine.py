"""Requests to the torch engine, on a model that never ends by itself: its KV by count, stops, aborts, failures."""

import asyncio
from itertools import chain

import numpy as np
import pytest
import torch

from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.errors import EngineError, InputError
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
    (parent,) = endless.all(ask("parent", prefix, 0, keep_kv=True))
    children = [ask(f"child {n}", prefix + words(n, 1 + 5 * n), 12, held=(parent.kv,)) for n in range(5)]
    strangers = [ask(f"stranger {n}", words(20 + n, 3 + 60 * n), 12) for n in range(3)]
    requests = [*children, *strangers]
    for request, output in zip(requests, endless.all(*requests), strict=True):
        endless.check(request.ids, output)
    parent.kv.release()


def test_slices_share_slots_and_are_released_on_their_own(endless):
    ids = words(10, 40)
    (whole,) = endless.all(ask("whole", ids, 0, keep_kv=True))
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
    (parent,) = endless.all(ask("parent", ids, 0, keep_kv=True))

    async def orphan():
        task = asyncio.create_task(endless.engine.generate(ask("orphan", [*ids, 3], 10, held=(parent.kv,))))
        await asyncio.sleep(0)
        parent.kv.release()
        return await task

    endless.check([*ids, 3], endless.run(orphan()))


@pytest.mark.parametrize("keep_kv", [False, True])
def test_continuation_with_no_new_ids(endless, keep_kv):
    ids = words(12, 70)
    (parent,) = endless.all(ask("parent", ids, 0, keep_kv=True))
    assert (parent.ids, parent.finish_reason, len(parent.kv)) == ([], "length", 70)
    both = endless.all(*(ask(f"same {n}", ids, 9, held=(parent.kv,), keep_kv=keep_kv) for n in range(2)))
    for output in both:
        endless.check(ids, output)
        assert (output.prefilled_tokens, output.cached_tokens) == (70, 70)
        if keep_kv:
            (more,) = endless.all(ask("more", ids + output.ids, 5, held=(output.kv,)))
            endless.check(ids + output.ids, more)
            output.kv.release()
    parent.kv.release()


def test_joining_kv_computes_nothing(endless):
    ids = words(13, 30)
    (whole,) = endless.all(ask("whole", ids, 0, keep_kv=True))
    head, tail = whole.kv[:10], whole.kv[10:]
    before = endless.engine.kv_bytes()
    (joined,) = endless.all(ask("joined", ids, 0, held=(head, tail), keep_kv=True))
    assert endless.engine.kv_bytes() == before
    assert (len(joined.kv), joined.prefilled_tokens, joined.cached_tokens) == (30, 30, 30)
    for kv in (whole.kv, head, tail, joined.kv):
        kv.release()


def test_32_children_hold_their_prefix_once(endless):
    prefix = words(14, 2000)
    (parent,) = endless.all(ask("parent", prefix, 0, keep_kv=True))
    each = endless.engine.kv_bytes() / 2000
    children = endless.all(*(ask(f"{n}", [*prefix, 1 + n], 8, held=(parent.kv,), keep_kv=True) for n in range(32)))
    ideal = each * (2000 + 32 * 9)
    assert ideal <= endless.engine.kv_bytes() <= 1.05 * ideal
    parent.kv.release()
    for child in children:
        child.kv.release()


def test_held_kv_outlives_the_growth_of_the_pool(endless_folder):
    house = start(endless_folder)
    ids = words(29, 90)
    (parent,) = house.all(ask("parent", ids, 0, keep_kv=True))
    before = house.engine._pool.keys[0].shape[1]
    large, child = house.all(ask("large", words(30, 2500), 2), ask("child", [*ids, 7], 20, held=(parent.kv,)))
    assert house.engine._pool.keys[0].shape[1] > before
    house.check(words(30, 2500), large)
    house.check([*ids, 7], child)
    house.close()


def test_low_precision_stays_close(endless_folder):
    house = start(endless_folder, dtype="bfloat16")
    prefix = words(28, 90)
    (parent,) = house.all(ask("parent", prefix, 0, keep_kv=True))
    children = [ask(f"{n}", prefix + words(n, 1 + n), 8, held=(parent.kv,)) for n in range(3)]
    for child, output in zip(children, house.all(*children), strict=True):
        every = house.reference(child.ids + output.ids)[len(child.ids) - 1 : -1]
        chosen = every.gather(1, torch.tensor(output.ids)[:, None])[:, 0]
        np.testing.assert_allclose(output.logprobs, chosen, atol=0.2)
    house.close()


def test_score_of_one_token_is_empty(endless):
    assert endless.run(endless.engine.score([4])) == []


def test_stops(endless):
    ids = words(18, 5)
    (free,) = endless.all(ask("free", ids, 40))
    assert (len(free.ids), free.finish_reason) == (40, "length")
    text = "".join(WORDS[token] for token in free.ids)
    by_id, by_text, unseen = endless.all(
        ask("id", ids, 40, stop=(free.ids[7],)),
        ask("text", ids, 40, stop_texts=("nowhere", text[4:9])),
        ask("unseen", ids, 40, stop_texts=("no such text",)),
    )
    first = free.ids.index(free.ids[7]) + 1
    assert (by_id.ids, by_id.finish_reason) == (free.ids[:first], "stop")
    ends = text.index(text[4:9]) + 5
    assert (by_text.ids, by_text.finish_reason) == (free.ids[:ends], "stop")
    assert unseen.ids == free.ids


def test_the_context_bounds_a_request(endless_folder):
    house = start(endless_folder, context=24)
    exact, full = house.all(ask("exact", words(20, 20), 50), ask("full", words(20, 24), 50))
    assert (len(exact.ids), exact.finish_reason) == (4, "length")
    assert (full.ids, full.finish_reason, full.prefilled_tokens) == ([], "length", 0)
    with pytest.raises(EngineError, match="context of 24"):
        house.all(ask("over", words(20, 25), 1))
    house.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("logprobs", [0, 3])
def test_tokens_are_reported_as_they_come(endless, stream, logprobs):
    deltas = []
    request = ask("watched", words(21, 5), 12, stream=stream, logprobs=logprobs)
    output = endless.run(endless.engine.generate(request, deltas.append))
    assert [len(delta.ids) for delta in deltas] == ([1] * 12 if stream else [1, 11])
    for name in ("ids", "logprobs", "top_logprobs"):
        assert list(chain(*(getattr(delta, name) for delta in deltas))) == getattr(output, name)
    assert {delta.policy_version for delta in deltas} == {0}
    assert output.policy_versions == [0] * 12
    assert len(output.top_logprobs) == (12 if logprobs else 0)


def test_top_logprobs_are_those_of_transformers(endless):
    ids = words(31, 20)
    requests = [ask(f"{count}", ids, 8, logprobs=count, temperature=1.5, top_k=2, seed=1) for count in (1, 5, 20)]
    for request, output in zip(requests, endless.all(*requests), strict=True):
        endless.check(ids, output, drawn=True)
        every = endless.reference(ids + output.ids)[len(ids) - 1 : -1].topk(request.sampling.logprobs)
        for top, expected, likely in zip(output.top_logprobs, every.values, every.indices, strict=True):
            assert list(top) == likely.tolist()
            np.testing.assert_allclose(list(top.values()), expected, atol=1e-4)


@pytest.mark.parametrize("after", [0, 5])
def test_an_error_of_a_callback_ends_its_request_alone(endless, after):
    error, seen = ZeroDivisionError("from the caller"), []

    def watch(delta):
        seen.extend(delta.ids)
        if len(seen) > after:
            raise error

    async def both():
        return await asyncio.gather(
            endless.engine.generate(ask("watched", words(22, 5), 200, stream=True, keep_kv=True), watch),
            endless.engine.generate(ask("other", words(22, 5), 40)),
            return_exceptions=True,
        )

    failed, other = endless.run(both())
    assert failed is error
    assert len(seen) == after + 1
    assert len(other.ids) == 40
    endless.check(words(22, 5), other)


def test_an_error_of_the_tokenizer_ends_its_request_alone(endless, monkeypatch):
    class Broken:
        def __len__(self):
            raise KeyError("no such token")

        def decode(self, ids, **options):
            raise KeyError("no such token")

    async def both():
        return await asyncio.gather(
            endless.engine.generate(ask("by text", words(22, 5), 12, stop_texts=("stop",))),
            endless.engine.generate(ask("other", words(22, 5), 12)),
            return_exceptions=True,
        )

    monkeypatch.setattr(endless.engine, "tokenizer", Broken())
    failed, other = endless.run(both())
    assert isinstance(failed, EngineError)
    assert "no such token" in str(failed)
    endless.check(words(22, 5), other)


@pytest.mark.parametrize("stream", [True, False])
def test_an_abort_ends_requests_and_returns_what_they_have(endless, stream):
    """Without the abort both would end with ``length``, after 200 tokens."""

    async def cut():
        seen = {"one": [], "two": []}
        started = asyncio.Event()

        def watch(name, delta):
            seen[name] += delta.ids
            if all(seen.values()):
                started.set()

        tasks = [
            asyncio.create_task(
                endless.engine.generate(
                    ask(name, words(23, 64), 200, stream=stream, keep_kv=True),
                    lambda delta, name=name: watch(name, delta),
                )
            )
            for name in seen
        ]
        other = asyncio.create_task(endless.engine.generate(ask("other", words(23, 9), 40)))
        await started.wait()
        await endless.engine.abort([])
        await endless.engine.abort(["one", "unknown", "two"])
        outputs = await asyncio.gather(*tasks)
        await endless.engine.abort({"one"})  # has ended
        return seen, outputs, await other

    seen, outputs, other = endless.run(cut())
    for name, output in zip(seen, outputs, strict=True):
        assert (output.finish_reason, output.kv) == ("abort", None)
        assert 1 <= len(output.ids) < 200
        assert output.ids == seen[name]
        assert output.prefilled_tokens == 64
        endless.check(words(23, 64), output)
    assert (len(other.ids), other.finish_reason) == (40, "length")
    endless.check(words(23, 9), other)


def test_a_request_that_is_aborted_before_its_first_step_took_in_nothing(endless):
    (parent,) = endless.all(ask("parent", words(24, 30), 0, keep_kv=True))

    async def early():
        started = asyncio.Event()
        running = asyncio.create_task(
            endless.engine.generate(ask("running", words(24, 9), 30), lambda _: started.set())
        )
        await started.wait()
        tasks = [
            asyncio.create_task(endless.engine.generate(ask("early", [*words(24, 30), 3], 30, held=(parent.kv,)))),
            asyncio.create_task(endless.engine.generate(ask("other", [*words(24, 30), 3], 30, held=(parent.kv,)))),
        ]
        await asyncio.sleep(0)
        await endless.engine.abort(["early"])
        return await asyncio.gather(running, *tasks)

    running, early, other = endless.run(early())
    parent.kv.release()
    assert (early.ids, early.finish_reason) == ([], "abort")
    assert (early.prefilled_tokens, early.cached_tokens) == (0, 0)
    assert (running.prefilled_tokens, running.cached_tokens) == (9, 0)
    assert (other.prefilled_tokens, other.cached_tokens, len(other.ids)) == (31, 30, 30)


def test_a_cancelled_task_frees_its_kv(endless):
    async def drop():
        task = asyncio.create_task(endless.engine.generate(ask("dropped", words(24, 64), 3000)))
        await asyncio.sleep(0.05)
        assert not await endless.engine.kv_is_free()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return await endless.engine.kv_is_free()

    assert endless.run(drop())


def test_a_full_pool_fails_the_request_that_asks_and_no_other(endless_folder):
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
        patch.setattr(endless.engine._runner.model, "net", out_of_memory)
        failures = endless.run(both())
    assert [str(failure) for failure in failures] == ["engine 'torch' failed in a step: out of memory"] * 2
    assert all(isinstance(failure, EngineError) for failure in failures)
    assert endless.run(endless.engine.kv_is_free())
    assert [len(output.ids) for output in endless.run(both())] == [9, 9]


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
