"""The torch engine against a forward pass of transformers, on random models of seven families; and what it refuses."""

import asyncio
from itertools import chain

import numpy as np
import pytest
import torch
import transformers

from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.engines.torch.model import ATTENTION
from parallel_reason.errors import ModelError
from tests.house import House, ask
from tests.letters import FAMILIES, build, words, write_tokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = build(request.param, tmp_path_factory.mktemp(request.param))
    house = House(folder, TorchEngine.start(folder, device="cpu"))
    yield house
    assert house.run(house.engine.kv_is_free())
    house.close()


def test_a_packed_batch_equals_transformers(family):
    prompts = [words(n, n) for n in (1, 2, 7, 20, 33)]
    for prompt, output in zip(prompts, family.all(*(ask(f"packed {len(p)}", p, 8) for p in prompts)), strict=True):
        family.check(prompt, output)


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
    for number, output in enumerate(late):
        family.check(words(number, 9), output)


def test_a_fork_from_kept_kv_equals_a_plain_forward(family, monkeypatch):
    monkeypatch.setattr("parallel_reason.engines.torch.request.SHORTEST_SHARED", 8)
    prefix = words(3, 30)
    (parent,) = family.all(ask("parent", prefix, 4, keep_kv=True))
    seen = prefix + parent.ids
    assert len(parent.kv) == len(seen)
    children = [ask(f"child {n}", seen + words(n, 1 + n % 3), 8, held=(parent.kv,)) for n in range(6)]
    for child, output in zip(children, family.all(*children), strict=True):
        assert output.cached_tokens == len(seen)
        family.check(child.ids, output)
    parent.kv.release()


def test_a_graft_equals_a_forward_under_its_mask(family):
    prefix, openings = words(5, 12), [words(6, 3), words(7, 5), words(8, 2)]
    (parent,) = family.all(ask("parent", prefix, 0, keep_kv=True))
    n = len(prefix)
    children = family.all(
        *(ask(f"child {k}", prefix + o, 4, held=(parent.kv,), keep_kv=True) for k, o in enumerate(openings))
    )
    grown = [opening + child.ids for opening, child in zip(openings, children, strict=True)]
    parts = [child.kv[n:] for child in children]
    tail = words(9, 2)
    ids = [*prefix, *chain(*grown), *tail]
    after = n + max(map(len, grown))
    positions = [*range(n), *(n + k for own in grown for k in range(len(own))), after, after + 1]
    join = ask("join", ids, 6, positions=positions, held=(parent.kv, *parts), keep_kv=True)
    (joined,) = family.all(join)
    mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    start = n
    for own in grown:
        mask[start : start + len(own), n:start] = False
        start += len(own)
    assert joined.cached_tokens == len(ids) - 2
    family.check(ids, joined, positions, mask)
    # A second thread continues from the graft.
    ids += [*joined.ids, 5]
    after = positions[-1] + 1
    positions += range(after, after + len(joined.ids) + 1)
    (deeper,) = family.all(ask("deeper", ids, 4, positions=positions, held=(joined.kv,)))
    family.check(ids, deeper, positions, mask)
    for kv in (parent.kv, joined.kv, *parts, *(child.kv for child in children)):
        kv.release()


def test_long_prompts_are_computed_in_chunks(family, monkeypatch):
    monkeypatch.setattr("parallel_reason.engines.torch.runner.MAX_BATCHED_TOKENS", 16)
    prompts = [words(n, n) for n in (50, 5, 41)]
    requests = [ask(f"chunks {len(prompt)}", prompt, 8) for prompt in prompts]
    for prompt, output in zip(prompts, family.all(*requests), strict=True):
        family.check(prompt, output)
    ids = words(15, 60)
    expected = family.reference(ids)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    np.testing.assert_allclose(family.run(family.engine.score(ids)), expected, atol=1e-4)


def test_the_models_own_end_stops(family):
    (output,) = family.all(ask("to the end", words(19, 4), 60, temperature=1.5, seed=1))
    if output.finish_reason == "stop":
        assert output.ids.index(0) == len(output.ids) - 1
    else:
        assert 0 not in output.ids


def test_windows_bound_the_context(family):
    config = family.plain.config
    window = (
        getattr(config, "sliding_window", None) if config.model_type in ("mistral", "gemma2", "gemma3_text") else None
    )
    assert family.engine.context == (window or 4096)


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
    ("kind", "options", "by_name", "by_running"),
    [
        ("GPT2", {"n_layer": 1, "n_head": 2, "n_embd": 16}, "no rotary positions", "no rotary positions"),
        ("Mamba", {"num_hidden_layers": 1, "hidden_size": 16}, "no rotary positions", "no rotary positions"),
        ("FalconH1", FALCON, "hybrid", "outside of attention"),
        ("Qwen3Next", QWEN_NEXT, "linear_attention", "layers without attention"),
    ],
)
def test_models_that_cannot_attend_over_a_pool_are_refused(kind, options, by_name, by_running, tmp_path, monkeypatch):
    write_tokenizer(tmp_path, eos_token="<eos>")
    ends = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**options, **ends)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for known, reason in ((ATTENTION, by_name), (ATTENTION | OTHER_KINDS, by_running)):
        monkeypatch.setattr("parallel_reason.engines.torch.model.ATTENTION", known)
        with pytest.raises(ModelError, match=reason) as refusal:
            asyncio.run(TorchEngine.start(str(tmp_path), device="cpu"))
        assert str(tmp_path) in str(refusal.value)
