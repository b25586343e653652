"""What vLLM is started with on a GPU: how its processes start and compute, and how much of the card they take.

Pure functions of facts about the model and the card, so that they can be tested where there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_reason.errors import InputError

GIB = 2**30
KV_TOKENS = 256 * 4096  # the KV that a model gets: of as many traces as a session runs at once, 4,096 tokens each
RESERVE = 4 * GIB  # for activations, CUDA graphs and CUDA itself
SHARE = 0.9  # of a card, at most
SIZES = ("gpu_memory_utilization", "kv_cache_memory_bytes", "num_gpu_blocks_override")  # what a caller may set instead
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


@dataclass(frozen=True, slots=True)
class Need:
    """What one model needs on each card.

    Attributes:
        weights: bytes, at most; None if they are not in a folder yet.
        token: bytes of KV of one token, at most; None if its KV is not that of plain attention.
        context: tokens that one thread may see.
    """

    weights: int | None
    token: int | None
    context: int


def environment(dtype: Any, flashinfer: bool) -> dict[str, str]:
    """Settings of vLLM and Triton for a GPU, where the user has made none.

    - Processes are spawned: forked ones fail once torch has used CUDA in this process, and load no plugin again.
    - In float32, products in Triton's attention are exact: by itself Triton takes tf32, which is 3e-4 off.
    - Without FlashInfer vLLM samples by its own kernels: 0.26 needs a setting for that.

    Args:
        dtype: that was asked for, a name or torch's own; None for the model's.
        flashinfer: whether it is installed.
    """
    settings = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    if str(dtype).removeprefix("torch.") in ("float", "float32"):
        settings["TRITON_F32_DEFAULT"] = "ieee"
    if not flashinfer:
        settings["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    return settings


def wrong_settings(made: Mapping[str, str], flashinfer: bool) -> str | None:
    """What in a user's environment keeps vLLM from running on a GPU, and the fix."""
    if made.get("VLLM_WORKER_MULTIPROC_METHOD", "spawn") != "spawn":
        return "vLLM's processes cannot use a GPU when they are forked: unset VLLM_WORKER_MULTIPROC_METHOD"
    if not flashinfer and made.get("VLLM_USE_FLASHINFER_SAMPLER", "0") != "0":
        return "FlashInfer is not installed: unset VLLM_USE_FLASHINFER_SAMPLER, or pip install flashinfer-python"
    return None


def memory(need: Need, card: int, kv_cache_gib: int | None = None) -> dict[str, Any]:
    """Fields of vLLM's ``CacheConfig`` that give a model the KV of `KV_TOKENS`, or of one context if that is more.

    Args:
        card: bytes of a card.
        kv_cache_gib: for KV, in place of that.

    Returns:
        Nothing where that would be more than `SHARE` of the card, or is not known; vLLM then takes its own share.

    Raises:
        InputError: ``kv_cache_gib`` is more than the card has beside the weights.
    """
    known = need.weights is not None and need.token is not None
    if kv_cache_gib is None and not known:
        return {}
    kv = (need.token or 0) * max(KV_TOKENS, need.context) if kv_cache_gib is None else kv_cache_gib * GIB
    share = ((need.weights or 0) + kv + RESERVE) / card
    if share > SHARE:
        if kv_cache_gib is None:
            return {}
        raise InputError(
            f"kv_cache_gib={kv_cache_gib} is more than this GPU has: of {card / GIB:.0f} GiB, the weights take "
            f"{(need.weights or 0) / GIB:.1f}, and {RESERVE // GIB} are for activations; give "
            f"{max(int((card * SHARE - (need.weights or 0) - RESERVE) // GIB), 0)} at most"
        )
    return {"kv_cache_memory_bytes": kv, "gpu_memory_utilization": round(share, 4)}


def need_of(config: Any) -> Need:
    """What the model of a ``VllmConfig`` needs."""
    model, parallel = config.model_config, config.parallel_config
    plain = not (model.use_mla or model.is_hybrid or model.is_attention_free)
    layer = 2 * model.get_num_kv_heads(parallel) * model.get_head_size() * model.dtype.itemsize
    return Need(
        weights=_weights(Path(model.model), model.dtype.itemsize, parallel.tensor_parallel_size),
        token=layer * model.get_num_layers(parallel) if plain else None,
        context=model.max_model_len,
    )


def _weights(folder: Path, itemsize: int, cards: int) -> int | None:
    """Bytes on each card, at most: files hold no less than two bytes a parameter."""
    size = sum(file.stat().st_size for pattern in WEIGHTS for file in folder.glob(pattern))
    return size * itemsize // 2 // cards or None


def advice(reason: str) -> str:
    """What to change when vLLM could not start for want of memory; empty for another reason."""
    if "Free memory on device" in reason:
        return "; another program has the rest: give a smaller kv_cache_gib, or gpu_memory_utilization"
    if "max seq len" in reason or "memory for the cache blocks" in reason:
        return "; give a smaller context, or a larger kv_cache_gib"
    if "out of memory" in reason:
        return "; give a smaller kv_cache_gib, context or max_num_seqs"
    return ""
