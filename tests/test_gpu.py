"""The contract on a GPU, with the ordinary vLLM: `make check-gpu`. Elsewhere everything here is skipped.

Both of vLLM's model runners, with and without CUDA graphs, over block sizes that FlashAttention takes. In float32 vLLM
picks another attention, so grafts are also compared in bfloat16, against the float32 reference of the same weights:
there a wrong position, mask or block costs nats, and rounding hundredths.
"""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.grammars import build
from parallel_reason import ParallelLLM
from parallel_reason.engines import EMBEDDED
from parallel_reason.engines.vllm.engine import VllmEngine
from parallel_reason.exactness import BOUND, compare, load_reference
from parallel_reason.trace.masks import dense, flex
from rl.policy_config import PolicyConfig
from rl.train import train
from tests.cases import CASES, GRAFT, NO_GRAFT, dialect_of, many, seen_in
from tests.house import House, ask
from tests.letters import build_endless, words
from tests.rows import row_of_all_dialects

ROUNDED = 0.05  # nats, the mean difference of bfloat16
FLEX = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  # of the norm, what compiled FlexAttention may be off by
STARTS = {
    "graphs": {"compile": True, "block_size": 16},
    "eager": {"compile": False, "block_size": 32},
    "large blocks": {"compile": True, "block_size": 128},
}

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module", autouse=True)
def compiled_apart(tmp_path_factory):
    """Tests that run side by side do not write what they compile into one cache."""
    with pytest.MonkeyPatch.context() as patch:
        if "PYTEST_XDIST_WORKER" in os.environ:
            for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
                patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """``models(dialect)``: a folder with a random model that writes it, and its reference."""
    made = {}

    def make(dialect):
        if dialect not in made:
            folder = build(str(tmp_path_factory.mktemp("model")), "qwen3", [dialect])
            made[dialect] = folder, load_reference(folder)
        return made[dialect]

    return make


@pytest.fixture(params=["0", "1"], ids=["runner v1", "runner v2"])
def runner(request, monkeypatch):
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", request.param)


@pytest.mark.parametrize("options", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("case", GRAFT)
def test_grafts_are_exact(models, runner, case, options):
    folder, reference = models(dialect_of(case))
    with ParallelLLM(folder, dialect=dialect_of(case), dtype="float32", **options) as llm:
        traces = many(llm, case, 48)
        assert llm.kv_is_free()
    assert seen_in(traces)["joined"] > 3
    assert not sum(trace.ledger.recomputed_tokens for trace in traces)
    assert max(compare(reference, trace).largest for trace in traces) < BOUND


@pytest.mark.parametrize("case", ["multiverse", "parathinker"])
def test_flash_attention_grafts_to_its_rounding(models, runner, case):
    folder, reference = models(dialect_of(case))
    with ParallelLLM(folder, dialect=dialect_of(case), dtype="bfloat16") as llm:
        compared = [compare(reference, trace) for trace in many(llm, case, 48)]
    assert np.mean(np.concatenate([abs(one.reported - one.expected) for one in compared])) < ROUNDED


@pytest.mark.parametrize("case", NO_GRAFT)
def test_other_joins_are_exact(models, case):
    folder, reference = models(dialect_of(case))
    with ParallelLLM(folder, dialect=dialect_of(case), dtype="float32") as llm:
        assert max(compare(reference, trace).largest for trace in many(llm, case, 48)) < BOUND


@pytest.mark.parametrize("case", CASES)
def test_the_torch_engine_is_exact_on_cuda(models, case):
    folder, reference = models(dialect_of(case))
    with ParallelLLM(folder, dialect=dialect_of(case), engine="torch", device="cuda", dtype="float32") as llm:
        assert max(compare(reference, trace).largest for trace in many(llm, case, 24)) < BOUND
        assert llm.kv_is_free()


def test_seeds_repeat_wherever_a_thread_is_cut(runner, tmp_path):
    folder = build_endless("Qwen3", tmp_path, head_dim=64)
    house = House(folder, VllmEngine.start(folder, context=2400, dtype="float32"))
    prompt = words(1, 2100)

    def drawn(name, ids, tokens, seed=5, first_draw=0):
        return house.all(ask(name, ids, tokens, temperature=1.0, seed=seed, first_draw=first_draw))[0].ids

    whole = drawn("whole", prompt, 60)
    assert drawn("again", prompt, 60) == whole
    assert drawn("other", prompt, 60, seed=6) != whole
    assert drawn("tail", prompt + whole[:23], 37, first_draw=23) == whole[23:]
    house.close()


def test_two_engines_share_a_card_after_this_process_has_used_it(models):
    folder, reference = models("multiverse")
    torch.zeros(1, device="cuda")
    start = {"dialect": "multiverse", "dtype": "float32", "compile": False}
    with ParallelLLM(folder, **start) as one, ParallelLLM(folder, **start) as other:
        assert "tf32" not in one.engine.precision
        for llm in (one, other):
            assert max(compare(reference, trace).largest for trace in many(llm, "multiverse", 12)) < BOUND


def test_a_policy_learns_beside_the_engine_that_samples_it(tmp_path):
    config = PolicyConfig.model_validate(
        {
            "out": tmp_path / "run", "engine": "vllm", "engine_options": {"dtype": "float32"}, "groups": 8,
            "sampling": {"temperature": 2.0, "below": {"temperature": 1.0}, "n": 8, "seed": 0},
            "objective": {"name": "p_grpo"}, "measure_kl": False,
            "rewards": [{"kind": "correctness"}, {"kind": "total_tokens", "cost": 1.0, "of": "all"}],
            "optimization": {"steps": 6, "learning_rate": 1e-4, "micro_batch": 64, "report_to": []},
        }
    )  # fmt: skip
    folder = train(config)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    print(*steps, sep="\n")
    mismatch = [step["largest_sampler_mismatch"] for step in steps if "largest_sampler_mismatch" in step]
    assert len(mismatch) == 6
    assert max(mismatch) < BOUND
    before, after = (load_file(f"{place}/model.safetensors") for place in (EMBEDDED, folder))
    assert any(not torch.equal(before[name].float(), after[name].float()) for name in after)


def off(ours, wanted):
    return float((ours.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", FLEX, ids=str)
def test_flex_attention_compiled_for_cuda_is_attention_in_float64(dtype):
    row = row_of_all_dialects()
    torch.manual_seed(0)
    query, key, value, grad = torch.randn(4, 1, 4, len(row.ids), 64, device="cuda").to(dtype).unbind()
    given = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    ours = torch.compile(flex_attention)(*given, block_mask=flex(row, device="cuda"))
    ours.backward(grad)
    exact = [tensor.double().requires_grad_() for tensor in (query, key, value)]
    scores = exact[0] @ exact[1].transpose(-1, -2) / 8
    wanted = scores.masked_fill(~dense(row).to("cuda"), float("-inf")).softmax(-1) @ exact[2]
    wanted.backward(grad.double())
    assert off(ours.detach(), wanted.detach()) < FLEX[dtype]
    for tensor, other in zip(given, exact, strict=True):
        assert off(tensor.grad, other.grad) < 3 * FLEX[dtype]
