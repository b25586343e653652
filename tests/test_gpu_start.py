"""What vLLM is started with on a GPU, worked out from facts; no GPU is needed."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parallel_reason import InputError
from parallel_reason.engines.vllm.gpu import (
    GIB,
    KV_TOKENS,
    RESERVE,
    SHARE,
    Need,
    advice,
    environment,
    memory,
    need_of,
    wrong_settings,
)
from parallel_reason.engines.vllm.process import starting

H100 = 80 * GIB
SMALL = Need(weights=GIB // 4, token=23_040, context=8192)  # SmolLM2-135M in bfloat16: 30 layers, 3 KV heads of 64
LARGE = Need(weights=16 * GIB, token=147_456, context=40_960)  # Qwen3-8B: 36 layers, 8 KV heads of 128


@pytest.mark.parametrize("dtype", ["float32", torch.float32, "float"])
def test_float32_is_exact_on_a_gpu(dtype):
    assert environment(dtype, flashinfer=True)["TRITON_F32_DEFAULT"] == "ieee"


@pytest.mark.parametrize("dtype", [None, "auto", "bfloat16", torch.bfloat16])
def test_other_types_leave_triton_alone(dtype):
    assert environment(dtype, flashinfer=True) == {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}


def test_without_flashinfer_vllm_is_told_to_sample_by_itself():
    assert environment(None, flashinfer=False)["VLLM_USE_FLASHINFER_SAMPLER"] == "0"


def test_settings_hold_while_vllm_starts_and_the_users_own_come_first(monkeypatch):
    monkeypatch.setenv("TRITON_F32_DEFAULT", "tf32x3")
    monkeypatch.delenv("VLLM_WORKER_MULTIPROC_METHOD", raising=False)
    with starting(False, None, device=environment("float32", flashinfer=True)) as log:
        assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
        assert os.environ["TRITON_F32_DEFAULT"] == "tf32x3"
    log.unlink()
    assert "VLLM_WORKER_MULTIPROC_METHOD" not in os.environ


def test_a_small_model_gets_the_kv_that_it_can_use_and_leaves_the_card_to_others():
    sizes = memory(SMALL, H100)
    assert sizes["kv_cache_memory_bytes"] == KV_TOKENS * SMALL.token
    assert 2 * sizes["gpu_memory_utilization"] < 1
    long = Need(weights=GIB, token=1024, context=4 * KV_TOKENS)
    assert memory(long, H100)["kv_cache_memory_bytes"] == 4 * KV_TOKENS * 1024  # one thread may fill its window


def test_a_large_model_gets_what_vllm_gives_it():
    assert memory(LARGE, H100) == memory(Need(None, 100, 100), H100) == memory(Need(100, None, 100), H100) == {}


def test_memory_that_was_asked_for_is_given_or_refused_with_what_fits():
    assert memory(LARGE, H100, kv_cache_gib=40)["kv_cache_memory_bytes"] == 40 * GIB
    assert memory(Need(None, None, 1), H100, kv_cache_gib=8)["kv_cache_memory_bytes"] == 8 * GIB
    with pytest.raises(InputError, match=r"kv_cache_gib=60 .* of 80 GiB, the weights take 16.0.*give 52 at most"):
        memory(LARGE, H100, kv_cache_gib=60)
    assert memory(LARGE, H100, kv_cache_gib=52)


SIZES = st.integers(1, 100 * GIB)


@given(st.builds(Need, weights=SIZES, token=st.integers(1, 1 << 16), context=st.integers(1, 1 << 24)), SIZES)
def test_a_context_fits_and_the_card_is_never_overbooked(need, card):
    if sizes := memory(need, card):
        assert sizes["kv_cache_memory_bytes"] >= need.context * need.token
        assert need.weights + sizes["kv_cache_memory_bytes"] + RESERVE <= SHARE * card
        assert 0 < sizes["gpu_memory_utilization"] <= SHARE


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("ValueError: Free memory on device cuda:0 (9.1/80.0 GiB) on startup is less than desired", "kv_cache_gib"),
        ("ValueError: To serve at least one request with the model's max seq len (40960), 5 GiB KV", "smaller context"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "max_num_seqs"),
        ("ValueError: another thing", ""),
    ],
)
def test_an_error_for_want_of_memory_says_what_to_change(reason, fix):
    assert fix in advice(reason)
    assert bool(fix) == bool(advice(reason))


def test_settings_that_cannot_run_on_a_gpu_are_named():
    assert wrong_settings({}, flashinfer=False) is None
    assert wrong_settings({"VLLM_USE_FLASHINFER_SAMPLER": "1"}, flashinfer=True) is None
    assert "pip install flashinfer-python" in wrong_settings({"VLLM_USE_FLASHINFER_SAMPLER": "1"}, flashinfer=False)
    assert "VLLM_WORKER_MULTIPROC_METHOD" in wrong_settings({"VLLM_WORKER_MULTIPROC_METHOD": "fork"}, flashinfer=True)


def test_what_a_model_needs_is_what_vllm_gives_it(soup, soup_model):
    config = soup.engine.llm.vllm_config
    need, cache = need_of(config), config.cache_config
    block = cache.block_size * need.token
    assert GIB - block < cache.num_gpu_blocks * block <= GIB  # VLLM_CPU_KVCACHE_SPACE
    assert need.weights >= (Path(soup_model) / "model.safetensors").stat().st_size
    assert need.context == 512


def test_an_engine_says_in_what_it_computes(soup):
    assert soup.engine.precision == "float32, attention by CPU_ATTN"
