"""The torch engine against transformers' own forward pass, on random models of seven families; and its KV, by count."""

import asyncio
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from parallel_reason import SamplingParams
from parallel_reason.engines import torch_batch, torch_model, torch_request
from parallel_reason.engines.base import Decode
from parallel_reason.engines.torch import TorchEngine
from parallel_reason.errors import EngineError, InputError, ModelError

WORDS = ["<eos>", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"]
FAMILIES = {
    "Qwen3": {"head_dim": 16},
    "Qwen2": {},
    "Llama": {},
    "Mistral": {"sliding_window": 80},
    "Gemma": {"head_dim": 24},
    "Gemma2": {"head_dim": 16, "sliding_window": 72, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0},
    "Gemma3": {"head_dim": 16, "sliding_window": 72, "sliding_window_pattern": 2},
}


def build(family, folder, **options):
    """A random model of a family, and a tokenizer with a token a letter, in a folder."""
    config = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")(
        **{
            "vocab_size": len(WORDS), "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "initializer_range": 0.2, "tie_word_embeddings": False, "eos_token_id": 0,
            "bos_token_id": None, "pad_token_id": 0,
        } | FAMILIES.get(family, {}) | options,
    )  # fmt: skip
    torch.manual_seed(11)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>").save_pretrained(folder)
    return str(folder)


class House:
    """An engine on an event loop of its own, and the same model under plain transformers."""

    def __init__(self, folder, **options):
        self.runner = asyncio.Runner()
        self.run = self.runner.run
        self.engine = self.run(TorchEngine.start(folder, device="cpu", **options))
        self.plain = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )

    def reference(self, ids, positions=None, mask=None):
        """Log-probs after every token, [tokens, vocabulary]; causal unless told otherwise."""
        seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril() if mask is None else mask
        with torch.no_grad():
            logits = self.plain(
                input_ids=torch.tensor([ids]),
                position_ids=torch.tensor([positions or list(range(len(ids)))]),
                attention_mask=torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None],
                use_cache=False,
            ).logits[0]
        return logits.log_softmax(-1)

    def check(self, ids, decoded, positions=None, mask=None):
        """``decoded`` is what transformers does greedily after ``ids``, with the same log-probs."""
        assert decoded.ids
        every = self.reference(ids + decoded.ids, positions, mask)[len(ids) - 1 : -1]
        assert every.argmax(-1).tolist() == decoded.ids
        chosen = every.gather(1, torch.tensor(decoded.ids)[:, None])[:, 0]
        np.testing.assert_allclose(decoded.logprobs, chosen, atol=1e-4)

    def all(self, *requests):
        async def together():
            return await asyncio.gather(*(self.engine.generate(request) for request in requests))

        return self.run(together())

    def close(self):
        self.run(self.engine.close())
        self.runner.close()


def ask(name, ids, tokens, *, temperature=0.0, top_k=0, top_p=1.0, stop=(), **options):
    sampling = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    return Decode(name, list(ids), tokens, frozenset(stop), sampling, **options)


def words(seed, count):
    return np.random.default_rng(seed).integers(1, len(WORDS), count).tolist()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    house = House(build(request.param, tmp_path_factory.mktemp(request.param)))
    yield house
    assert house.run(house.engine.kv_is_free())
    house.close()


@pytest.fixture(scope="module")
def endless_folder(tmp_path_factory):
    """A model that never ends by itself: its end is a token outside of the vocabulary."""
    folder = build("Llama", tmp_path_factory.mktemp("endless"), eos_token_id=len(WORDS) + 1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def endless(endless_folder):
    house = House(endless_folder)
    yield house
    house.close()


@pytest.fixture(autouse=True)
def all_kv_comes_back(request):
    yield
    if "endless" in request.fixturenames:
        house = request.getfixturevalue("endless")
        assert house.run(house.engine.kv_is_free())
        assert house.engine.kv_bytes() == 0


def test_a_packed_batch_equals_transformers(family):
    prompts = [words(n, n) for n in (1, 2, 7, 20, 33)]
    for prompt, decoded in zip(prompts, family.all(*(ask(f"packed {len(p)}", p, 8) for p in prompts)), strict=True):
        family.check(prompt, decoded)


def test_requests_that_join_late_equal_transformers(family):
    async def staggered():
        first = asyncio.create_task(family.engine.generate(ask("first", words(1, 30), 24, stop=())))
        late = []
        for number in range(3):
            await asyncio.sleep(0.01)
            late.append(asyncio.create_task(family.engine.generate(ask(f"late {number}", words(number, 9), 6))))
        return await asyncio.gather(first, *late)

    first, *late = family.run(staggered())
    family.check(words(1, 30), first)
    for number, decoded in enumerate(late):
        family.check(words(number, 9), decoded)


def test_a_fork_from_kept_kv_equals_a_plain_forward(family, monkeypatch):
    monkeypatch.setattr(torch_request, "SHORTEST_SHARED", 8)
    prefix = words(3, 30)
    (parent,) = family.all(ask("parent", prefix, 4, keep=True))
    seen = prefix + parent.ids
    assert len(parent.kv) == len(seen)
    children = [ask(f"child {n}", seen + words(n, 1 + n % 3), 8, held=(parent.kv,)) for n in range(6)]
    for child, decoded in zip(children, family.all(*children), strict=True):
        assert decoded.cached_tokens == len(seen)
        family.check(child.ids, decoded)
    parent.kv.release()


def test_a_family_with_a_long_prefix_and_private_parts_of_all_lengths(endless):
    prefix = words(4, 200)
    (parent,) = endless.all(ask("parent", prefix, 0, keep=True))
    children = [ask(f"child {n}", prefix + words(n, 1 + 5 * n), 12, held=(parent.kv,)) for n in range(5)]
    strangers = [ask(f"stranger {n}", words(20 + n, 3 + 60 * n), 12) for n in range(3)]
    requests = [*children, *strangers]
    for request, decoded in zip(requests, endless.all(*requests), strict=True):
        endless.check(request.ids, decoded)
    parent.kv.release()


def test_a_graft_equals_a_forward_under_its_mask(family):
    prefix, openings = words(5, 12), [words(6, 3), words(7, 5), words(8, 2)]
    (parent,) = family.all(ask("parent", prefix, 0, keep=True))
    n = len(prefix)
    children = family.all(
        *(ask(f"child {k}", prefix + o, 4, held=(parent.kv,), keep=True) for k, o in enumerate(openings))
    )
    grown = [opening + child.ids for opening, child in zip(openings, children, strict=True)]
    parts = [child.kv[n:] for child in children]
    tail = words(9, 2)
    ids = [*prefix, *chain(*grown), *tail]
    after = n + max(map(len, grown))
    positions = [*range(n), *(n + k for own in grown for k in range(len(own))), after, after + 1]
    join = ask("join", ids, 6, positions=positions, held=(parent.kv, *parts), keep=True)
    (joined,) = family.all(join)
    total = len(ids) + len(joined.ids)
    mask = torch.ones(total, total, dtype=torch.bool).tril()
    start = n
    for own in grown:
        mask[start : start + len(own), n:start] = False
        start += len(own)
    every = positions + [after + 2 + k for k in range(len(joined.ids))]
    assert joined.cached_tokens == len(ids) - 2
    family.check(ids, joined, every, mask)
    # A second generation hangs on the graft.
    (deeper,) = family.all(
        ask("deeper", ids + joined.ids + [5], 4, positions=[*every, every[-1] + 1], held=(joined.kv,))
    )
    total += 1 + len(deeper.ids)
    wide = torch.ones(total, total, dtype=torch.bool).tril()
    wide[: len(mask), : len(mask)] = mask
    family.check(ids + joined.ids + [5], deeper, every + [every[-1] + 1 + k for k in range(1 + len(deeper.ids))], wide)
    for kv in (parent.kv, joined.kv, *parts, *(child.kv for child in children)):
        kv.release()


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
    house = House(endless_folder)
    ids = words(29, 90)
    (parent,) = house.all(ask("parent", ids, 0, keep=True))
    before = house.engine._pool.keys[0].shape[1]
    large, child = house.all(ask("large", words(30, 2500), 2), ask("child", [*ids, 7], 20, held=(parent.kv,)))
    assert house.engine._pool.keys[0].shape[1] > before
    house.check(words(30, 2500), large)
    house.check([*ids, 7], child)
    house.close()


def test_long_prompts_are_computed_in_parts(family, monkeypatch):
    monkeypatch.setattr(torch_batch, "STEP_TOKENS", 16)
    prompts = [words(n, n) for n in (50, 5, 41)]
    requests = [ask(f"parts {len(prompt)}", prompt, 8) for prompt in prompts]
    for prompt, decoded in zip(prompts, family.all(*requests), strict=True):
        family.check(prompt, decoded)
    ids = words(15, 60)
    expected = family.reference(ids)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    np.testing.assert_allclose(family.run(family.engine.score(ids)), expected, atol=1e-4)


def test_low_precision_stays_close(endless_folder):
    house = House(endless_folder, dtype="bfloat16")
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


def test_the_models_own_end_stops(family):
    (decoded,) = family.all(ask("to the end", words(19, 4), 60, temperature=1.5, seed=1))
    if decoded.reason == "stop":
        assert decoded.ids.index(0) == len(decoded.ids) - 1
    else:
        assert 0 not in decoded.ids


def test_the_context_bounds_a_request(endless_folder):
    house = House(endless_folder, context=24)
    exact, full = house.all(ask("exact", words(20, 20), 50), ask("full", words(20, 24), 50))
    assert (len(exact.ids), exact.reason) == (4, "length")
    assert (full.ids, full.reason) == ([], "length")
    with pytest.raises(EngineError, match="context of 24"):
        house.all(ask("over", words(20, 25), 1))
    house.close()


def test_windows_bound_the_context(family):
    config = family.plain.config
    window = (
        getattr(config, "sliding_window", None) if config.model_type in ("mistral", "gemma2", "gemma3_text") else None
    )
    assert family.engine.context == (window or 4096)


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
    house = House(endless_folder, kv_tokens=100)

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
    house = House(endless_folder)

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


FALCON = {
    "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 16,
    "num_key_value_heads": 1, "mamba_d_ssm": 32, "mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 8,
    "initializer_range": 0.2,
}  # fmt: skip
QWEN_NEXT = {
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 16,
    "num_key_value_heads": 1, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "linear_num_key_heads": 1, "linear_num_value_heads": 1,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
OTHER_KINDS = {"hybrid", "linear_attention"}


@pytest.mark.parametrize(
    ("kind", "options", "by_name", "by_deed"),
    [
        ("GPT2", {"n_layer": 1, "n_head": 2, "n_embd": 16}, "no rotary positions", "no rotary positions"),
        ("Mamba", {"num_hidden_layers": 1, "hidden_size": 16}, "no rotary positions", "no rotary positions"),
        ("FalconH1", FALCON, "hybrid", "outside of attention"),
        ("Qwen3Next", QWEN_NEXT, "linear_attention", "layers without attention"),
    ],
)
def test_models_that_cannot_attend_over_a_pool_are_refused(
    kind, options, by_name, by_deed, endless_folder, tmp_path, monkeypatch
):
    transformers.AutoTokenizer.from_pretrained(endless_folder).save_pretrained(tmp_path)
    ends = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**options, **ends)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for known, why in ((torch_model.ATTENTION, by_name), (torch_model.ATTENTION | OTHER_KINDS, by_deed)):
        monkeypatch.setattr(torch_model, "ATTENTION", known)
        with pytest.raises(ModelError, match=why) as refusal:
            asyncio.run(TorchEngine.start(str(tmp_path), device="cpu"))
        assert str(tmp_path) in str(refusal.value)


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
