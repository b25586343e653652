"""The vLLM engine alone, request by request: prefixes, seeds, log-probs, weights, aborts, and how it ends."""

import asyncio

import pytest
import torch
from vllm import SamplingParams, TokensPrompt

from parallel_reason.engines.seeded_draw import OVER_A_THREAD
from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.engines.vllm import compat
from parallel_reason.engines.vllm.engine import VllmEngine
from parallel_reason.engines.vllm.sampling import refused
from parallel_reason.errors import EngineError, InputError
from tests.failing_processor import FATAL, FailingProcessor
from tests.house import House, ask
from tests.letters import build_endless, words
from tests.other_weights import lora_adapter, other_weights
from tests.rules import RULES, continued

CONTEXT = 2400
LONG = 2100  # tokens of a prompt that vLLM computes over two steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_endless("Qwen3", tmp_path_factory.mktemp("endless"), head_dim=32)


@pytest.fixture(scope="module")
def house(folder):
    """One engine for all tests of this file; the last of them ends it."""
    options = {"enable_lora": True, "max_loras": 2, "max_lora_rank": 8}
    fails = ["tests.failing_processor:FailingProcessor"]
    house = House(folder, VllmEngine.start(folder, context=CONTEXT, logits_processors=fails, **options))
    yield house
    house.close()


@pytest.fixture(autouse=True)
def nothing_is_held_in_the_end(request):
    yield
    if "house" in request.fixturenames:
        house = request.getfixturevalue("house")
        assert house.engine.llm.errored or house.run(house.engine.kv_is_free())


def test_children_hit_every_full_block_of_their_parents_prefix(house):
    prefix = words(1, 130)
    (parent,) = house.all(ask("parent", prefix, 8))
    seen = prefix + parent.ids
    children = house.all(*(ask(f"child {n}", [*seen, 1 + n], 4) for n in range(8)))
    assert (parent.prefilled_tokens, parent.cached_tokens) == (130, 0)
    assert {child.prefilled_tokens for child in children} == {len(seen) + 1}
    assert {child.cached_tokens for child in children} == {len(seen) // 32 * 32}


@pytest.fixture(scope="module")
def on_torch(folder):
    house = House(folder, TorchEngine.start(folder, device="cpu", context=CONTEXT))
    yield house
    house.close()


def seeded(name, ids, tokens, seed, first_draw=0, **options):
    return ask(name, ids, tokens, temperature=1.0, seed=seed, first_draw=first_draw, **options)


def test_a_seeded_request_whose_prompt_takes_two_steps_is_drawn_as_on_the_torch_engine(house, on_torch):
    prompt = words(2, LONG)
    first, again, other = (house.all(seeded(f"{n}", prompt, 40, seed))[0] for n, seed in enumerate((0, 0, 1)))
    assert first.ids == again.ids
    assert first.ids != other.ids
    house.check(prompt, first, drawn=True)
    assert on_torch.all(seeded("torch", prompt, 40, 0))[0].ids == first.ids


def test_where_a_thread_is_cut_into_requests_does_not_matter(house):
    prompt = words(3, 50)
    (whole,) = house.all(seeded("whole", prompt, 60, 5))
    (head,) = house.all(seeded("head", prompt, 23, 5))
    (tail,) = house.all(seeded("tail", prompt + head.ids, 37, 5, first_draw=23))
    assert head.ids + tail.ids == whole.ids


def test_many_seeded_children_at_once_are_drawn_as_on_the_torch_engine(house, on_torch):
    prefix = words(4, 700)
    requests = [
        ask(f"{n}", prefix + words(n, n), 20, temperature=0.5 + n % 3, top_k=n % 2 * 9, top_p=1 - n % 4 / 10, seed=n)
        for n in range(48)
    ]
    mixed = [ask("greedy", prefix, 30), ask("unseeded", prefix, 30, temperature=1.0)]
    outputs = house.all(*requests, *mixed)
    assert [output.ids for output in outputs[:-2]] == [output.ids for output in on_torch.all(*requests)]
    house.check(prefix, outputs[-2])


def test_rules_over_a_thread_draw_as_on_the_torch_engine_wherever_it_is_cut(house, on_torch):
    """Beside prompts that take two steps, whose first draws vLLM drops."""
    short, long = words(17, 5), words(2, LONG)
    requests = [
        ask(f"{n} {len(ids)}", ids, 40, seed=seed, **{"temperature": 1.0} | rule)
        for n, rule in enumerate(RULES)
        for ids, seed in ((short, 5), (long, 6))
    ]
    greedy = [ask(f"greedy {n}", short, 20, **rule) for n, rule in enumerate(RULES)]
    outputs, expected = house.all(*requests, *greedy), on_torch.all(*requests, *greedy)
    assert [output.ids for output in outputs] == [output.ids for output in expected]
    assert [output.finish_reason for output in outputs] == [output.finish_reason for output in expected]
    for number, rule in enumerate(RULES):
        house.check(short, outputs[2 * number], drawn=True)  # log-probs are of the model, whatever the rules
        parts = continued(house, short, (1, 12, 27), {"seed": 5, "temperature": 1.0, **rule})
        assert parts.ids == outputs[2 * number].ids


def test_a_rule_without_a_seed_holds_too(house):
    rule = {"temperature": 1.0, "structured_outputs": {"regex": "[abc]{30}"}}
    outputs = house.all(*(ask(f"{n}", words(5, 9), 30, **rule) for n in range(4)))
    texts = {house.engine.tokenizer.decode(output.ids) for output in outputs}
    assert len(texts) == 4
    assert all(len(text) == 30 and set(text) <= set("abc") for text in texts)


def test_requests_with_an_adapter_are_of_the_merged_model_and_others_are_not(house, tmp_path):
    with pytest.raises(EngineError, match="engine 'vllm' cannot load lora='/no-such-adapter': ") as raised:
        house.all(ask("missing", [1, 2], 5, lora="/no-such-adapter"))
    assert "\n" not in str(raised.value)
    merged, ids = lora_adapter(house.plain, tmp_path), words(8, 40)
    plain, adapted, again, beside = house.all(
        ask("plain", ids, 20),
        ask("adapted", ids, 20, lora=str(tmp_path)),
        ask("again", ids, 20, lora=str(tmp_path)),
        ask("beside", ids[1:], 20),
    )
    house.check(ids, plain)
    house.check(ids[1:], beside)
    assert plain.ids != adapted.ids == again.ids
    before, house.plain = house.plain, merged
    house.check(ids, adapted)
    house.plain = before
    with pytest.raises(InputError, match="engine 'vllm' takes 1 adapters on a CPU; start it with a higher max_loras"):
        house.all(ask("another", [1, 2], 5, lora="/another"))


def test_what_vllm_cannot_do_over_a_thread_is_declared(house):
    config = house.engine.llm.vllm_config
    assert not house.engine.capabilities.refuses
    grafting = refused(config, graft=True, seeded_sampler=False)
    assert "merge the adapter" in grafting["lora"]
    assert grafting.keys() == {"lora", *OVER_A_THREAD}


def test_a_seeded_draw_that_is_not_valid_fails_its_request_alone(house):
    async def send():
        params = SamplingParams(max_tokens=5, extra_args={"seeded_draw": '{"seed": "5"}'})
        prompt = TokensPrompt(prompt_token_ids=[1, 2])
        with pytest.raises(compat.vllm_errors(), match="SeededDraw"):
            [output async for output in house.engine.llm.generate(prompt, params, "invalid")]

    house.run(send())
    house.check([1, 2], house.all(ask("after", [1, 2], 5))[0])


def test_the_most_likely_tokens_are_those_of_transformers(house):
    prompt = words(5, 30)
    requests = (seeded(f"{top}", prompt, 25, top, logprobs=top, stream=top == 3) for top in (0, 1, 3, 20))
    for top, output in zip((0, 1, 3, 20), house.all(*requests), strict=True):
        house.check(prompt, output, drawn=True)
        expected = house.reference(prompt + output.ids)[len(prompt) - 1 : -1].topk(max(top, 1))
        if top == 0:
            assert output.top_logprobs == []
            continue
        assert [list(found) for found in output.top_logprobs] == expected.indices.tolist()
        given = torch.tensor([list(found.values()) for found in output.top_logprobs])
        torch.testing.assert_close(given, expected.values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stream", [True, False])
def test_every_token_has_the_version_of_the_weights_that_sampled_it(house, folder, tmp_path, stream):
    old, new = house.plain, other_weights(folder, house.plain, tmp_path)
    prompt, deltas, first = words(6, 40), [], house.engine.policy_version

    async def change():
        started = asyncio.Event()
        watch = asyncio.create_task(
            house.engine.generate(ask("watch", [1], 2000, stream=True), lambda _: started.set())
        )
        task = asyncio.create_task(house.engine.generate(seeded("long", prompt, 900, 1, stream=stream), deltas.append))
        await started.wait()
        await asyncio.sleep(0.2)
        await house.engine.update_weights(str(tmp_path))
        await house.engine.abort(["watch"])
        await watch
        return await task

    output = house.run(change())
    before = output.policy_versions.count(first)
    assert 0 < before < 900
    assert output.policy_versions == [first] * before + [first + 1] * (900 - before)
    assert [delta.policy_version for delta in deltas for _ in delta.ids] == output.policy_versions
    ids = torch.tensor(output.ids)[:, None]
    given = torch.tensor(output.logprobs)
    for plain, part in ((old, slice(before)), (new, slice(before, None))):
        house.plain = plain
        expected = house.reference(prompt + output.ids)[len(prompt) - 1 : -1].gather(1, ids)[:, 0]
        torch.testing.assert_close(given[part], expected[part], atol=1e-4, rtol=0)
    house.run(house.engine.update_weights(folder))
    house.plain = old


def test_an_aborted_request_returns_what_it_has(house):
    async def cut():
        seen = []
        started = asyncio.Event()

        def on_tokens(delta):
            seen.extend(delta.ids)
            if len(seen) >= 5:
                started.set()

        task = asyncio.create_task(house.engine.generate(seeded("cut", words(7, 64), 2200, 1, stream=True), on_tokens))
        await started.wait()
        await house.engine.abort(["cut", "unknown"])
        return seen, await task

    seen, output = house.run(cut())
    assert output.finish_reason == "abort"
    assert 5 <= len(output.ids) < 2200
    assert output.ids == seen
    house.check(words(7, 64), output, drawn=True)


def test_requests_that_are_aborted_as_they_begin_end_as_aborted(house):
    async def race():
        names = [f"race {n}" for n in range(20)]
        tasks = [asyncio.create_task(house.engine.generate(seeded(name, words(8, 64), 2200, 1))) for name in names]
        await asyncio.sleep(0)
        await house.engine.abort(names)
        return await asyncio.gather(*tasks)

    assert {output.finish_reason for output in house.run(race())} == {"abort"}


def test_a_request_that_never_ran_took_in_nothing(house):
    async def abort():
        await house.engine.llm.pause_generation(mode="keep", clear_cache=False)
        task = asyncio.create_task(house.engine.generate(ask("waits", words(9, 64), 10)))
        await asyncio.sleep(0.05)
        await house.engine.abort(["waits"])
        await house.engine.llm.resume_generation()
        return await task

    output = house.run(abort())
    assert (output.finish_reason, output.ids) == ("abort", [])
    assert (output.prefilled_tokens, output.cached_tokens) == (0, 0)


@pytest.mark.parametrize("fails", [False, True], ids=["cancelled", "callback fails"])
def test_a_request_that_is_left_frees_its_kv(house, fails):
    def fail(delta):
        raise OSError("disk full")

    async def leave():
        request = seeded("left", [10] * 64, 2200, 2, stream=True)
        task = asyncio.create_task(house.engine.generate(request, fail if fails else None))
        await asyncio.sleep(0.05)
        task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(end, OSError if fails else asyncio.CancelledError)
        for _ in range(20):  # 2,200 tokens would take longer
            await asyncio.sleep(0.01)
            if await house.engine.kv_is_free():
                return True
        return False

    assert house.run(leave())


@pytest.mark.parametrize("ids", [[1 << 30], [10] * 3000], ids=["no such token", "longer than the window"])
def test_what_vllm_refuses_is_an_error_of_that_request(house, ids):
    with pytest.raises(EngineError, match="engine 'vllm' failed"):
        house.run(house.engine.generate(ask("refused", ids, 4)))
    with pytest.raises(EngineError, match="engine 'vllm' failed"):
        house.run(house.engine.score(ids))


def test_ids_of_running_requests_are_unique(house):
    async def twice():
        requests = (house.engine.generate(ask("twice", [1], 5)) for _ in range(2))
        return await asyncio.gather(*requests, return_exceptions=True)

    output, error = house.run(twice())
    house.check([1], output)
    assert isinstance(error, InputError)
    assert "request with the id 'twice' is already running" in str(error)


def test_an_engine_that_died_names_the_cause_and_keeps_its_log(house, folder):
    """The last test, as the engine is that of all."""
    log = house.engine._log
    house.check([1, 2], house.all(ask("before", [1, 2], 5))[0])

    async def die():
        other = asyncio.create_task(house.engine.generate(ask("other", [1, 2], 2200)))
        await asyncio.sleep(0.1)
        fatal = house.engine.generate(ask("fatal", [1, 2], 5, temperature=1.0, top_k=FATAL))
        return await asyncio.gather(fatal, other, return_exceptions=True)

    said = f"engine 'vllm' died: RuntimeError: top_k is {FATAL} (log: {log})"
    assert [(type(error), str(error)) for error in house.run(die())] == [(EngineError, said)] * 2
    for call in (house.engine.score([1, 2]), house.engine.kv_is_free(), house.engine.update_weights(folder)):
        with pytest.raises(EngineError, match="engine 'vllm' died: RuntimeError"):
            house.run(call)
    house.run(house.engine.close())
    assert FailingProcessor.__name__ in log.read_text() or "failing_processor" in log.read_text()
    log.unlink()
