"""The tokens of a seeded request on the torch engine: a function of its seed and context, whatever runs beside it."""

from collections import Counter

import pytest

from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.engines.torch.runner import MAX_BATCHED_TOKENS
from tests.house import House, ask
from tests.letters import build_endless, words


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    folder = build_endless("Llama", tmp_path_factory.mktemp("endless"))
    house = House(folder, TorchEngine.start(folder, device="cpu"))
    yield house
    assert house.run(house.engine.kv_is_free())
    house.close()


def drawn(name, ids, tokens, seed, **options):
    return ask(name, ids, tokens, seed=seed, **{"temperature": 1.0, "top_p": 0.95, "top_k": 40} | options)


@pytest.mark.parametrize("length", [5, MAX_BATCHED_TOKENS + 52])  # of the second, the prompt takes two steps
def test_a_seed_repeats_alone_and_among_others(endless, length):
    ids = words(16, length)
    (alone,) = endless.all(drawn("alone", ids, 30, 5))
    among, other, *_ = endless.all(
        drawn("among", ids, 30, 5),
        drawn("other", ids, 30, 6),
        *(ask(f"{n}", words(n, 40), 25, temperature=0.7) for n in range(5)),
    )
    endless.check(ids, alone, drawn=True)
    assert alone.ids == among.ids != other.ids


@pytest.mark.parametrize("length", [5, MAX_BATCHED_TOKENS + 52])
@pytest.mark.parametrize("held", [True, False])
def test_a_thread_that_is_cut_into_requests_draws_the_same(endless, length, held):
    ids = words(17, length)
    (whole,) = endless.all(drawn("whole", ids, 30, 5))
    (again,) = endless.all(drawn("again", ids, 30, 5, first_draw=1))
    assert again.ids != whole.ids
    tokens, kv = [], ()
    for count in (1, 12, 0, 17):
        request = drawn(f"part {len(tokens)}", ids + tokens, count, 5, first_draw=len(tokens), held=kv, keep_kv=held)
        (part,) = endless.all(request)
        for handle in kv:
            handle.release()
        kv = (part.kv,) if held else ()
        tokens += part.ids
    for handle in kv:
        handle.release()
    assert tokens == whole.ids


def test_without_a_seed_every_request_draws_its_own(endless):
    outputs = endless.all(*(drawn(f"{n}", words(16, 5), 30, None) for n in range(4)))
    assert len({tuple(output.ids) for output in outputs}) == 4


def test_a_seed_without_temperature_changes_nothing(endless):
    first, second = endless.all(*(ask(f"{seed}", words(18, 5), 20, seed=seed) for seed in (1, 2)))
    endless.check(words(18, 5), first)
    assert first.ids == second.ids


@pytest.mark.parametrize("temperature", [1e-40, 1e-10])
def test_a_temperature_near_0_is_greedy(endless, temperature):
    (output,) = endless.all(drawn("cold", words(18, 5), 20, 1, temperature=temperature))
    endless.check(words(18, 5), output)


def test_draws_follow_the_probabilities(endless):
    ids, count = words(17, 6), 1500
    logprobs = endless.reference(ids)[-1]
    top = (logprobs / 1.5).softmax(-1).topk(5)
    expected = dict(zip(top.indices.tolist(), (top.values / top.values.sum()).tolist(), strict=True))
    outputs = endless.all(*(ask(f"{n}", ids, 1, temperature=1.5, top_k=5, seed=n) for n in range(count)))
    counts = Counter(output.ids[0] for output in outputs)
    assert set(counts) <= set(expected)
    for token, probability in expected.items():
        assert abs(counts[token] / count - probability) < 5 * (probability * (1 - probability) / count) ** 0.5
    for output in outputs[:50]:  # reported at temperature 1, before any truncation
        assert output.logprobs[0] == pytest.approx(logprobs[output.ids[0]].item(), abs=1e-4)
    nucleus = endless.all(*(ask(f"{n}", ids, 1, temperature=1.5, top_p=1e-6, seed=n) for n in range(20)))
    assert {output.ids[0] for output in nucleus} == {logprobs.argmax().item()}
