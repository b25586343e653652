"""What differs between versions of vLLM and between devices, and what it keeps private, as far as grafts need it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parallel_reason.engines.vllm.compat import version
from parallel_reason.engines.vllm.graft import CONNECTOR
from parallel_reason.engines.vllm.graft.messages import ReleasePins, Salt

if TYPE_CHECKING:
    import torch

TESTED = (0, 26), (0, 32)  # the oldest and the newest minor version of vLLM that the tests were run on
ASYNC_SCHEDULING = (0, 30)  # the first on which the tests of grafts pass with async scheduling; older ones hang


def engine_options() -> dict[str, Any]:
    """Options that vLLM is started with to graft; a request whose pin is lost fails, and is not computed plainly."""
    from vllm.config import KVTransferConfig

    connector = KVTransferConfig(
        kv_connector="GraftConnector",
        kv_connector_module_path=CONNECTOR,
        kv_role="kv_both",
        kv_load_failure_policy="fail",
    )
    scheduling = {} if version() >= ASYNC_SCHEDULING else {"async_scheduling": False}
    return {"kv_transfer_config": connector, **scheduling}


def refusal(config: Any) -> str | None:
    """Why an engine with this ``VllmConfig`` cannot graft, or None if it can.

    Needed is one rotary position a token and one KV cache group in which every layer attends to everything.
    """
    oldest, newest = TESTED
    if not oldest <= version() <= newest:
        known = " to ".join(f"{major}.{minor}" for major, minor in TESTED)
        return "vLLM {}.{} is installed, and grafting is known to be exact on {} only".format(*version(), known)
    model, parallel = config.model_config, config.parallel_config
    text = model.hf_text_config
    windows = any("sliding" in kind or "chunk" in kind for kind in getattr(text, "layer_types", None) or ())
    reasons = {
        "its attention is compressed (MLA)": model.use_mla,
        "some of its layers attend to a window only": model.get_sliding_window() is not None or windows,
        "it attends in chunks": model.attention_chunk_size is not None,
        "it has layers without attention": model.is_hybrid or model.is_attention_free,
        "it has an encoder": model.is_encoder_decoder or model.is_multimodal_model,
        "it has positions of several axes (M-RoPE)": model.uses_mrope,
        "its positions are biases (ALiBi)": model.uses_alibi,
        "it is run with a draft model": config.speculative_config is not None,
        "tensor parallelism is on, which was never run with grafts": parallel.tensor_parallel_size > 1,
        "its layers are spread over several machines (pipeline)": parallel.pipeline_parallel_size > 1,
        "it is replicated (data parallel), and a pin lies on one replica": parallel.data_parallel_size > 1,
        "its context is spread over several devices": parallel.decode_context_parallel_size > 1,
        "scheduling is asynchronous, on vLLM before 0.30": config.scheduler_config.async_scheduling
        and version() < ASYNC_SCHEDULING,
        "LoRA is on": config.lora_config is not None,
        "its KV cache is quantised": config.cache_config.cache_dtype not in ("auto", "bfloat16", "float16", "float32"),
        "prefix caching is off": not config.cache_config.enable_prefix_caching,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def full_attention(kv_cache_config: Any) -> bool:
    """Whether a worker's KV cache is one group of layers that attend to everything."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec

    groups = kv_cache_config.kv_cache_groups
    spec = groups[0].kv_cache_spec
    return (
        len(groups) == 1
        and isinstance(spec, FullAttentionSpec)
        and not isinstance(spec, MLAAttentionSpec)
        and spec.sliding_window is None
        and spec.attention_chunk_size is None
    )


async def send(llm: Any, name: str, message: ReleasePins) -> None:
    """Bring a message to the connector in the scheduler, in a request that ends before it begins."""
    await llm.notify_kv_transfer_request_rejected(name, message.parameters())


def salt_hashes(request: Any, hash_function: Callable[[Any], bytes], block_size: int, salts: list[Salt]) -> None:
    """Have a request's blocks hashed with salts; each enters the hash of the block that its token lies in."""
    from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys, hash_block_tokens

    of_block: dict[int, tuple[str, ...]] = {}
    for token, text in salts:
        of_block[token // block_size] = (*of_block.get(token // block_size, ()), f"{token}:{text}")

    def hasher(request: Any) -> list[Any]:
        hashes = list(request.block_hashes)
        known = len(hashes)
        while (len(hashes) + 1) * block_size <= request.num_tokens:
            number = len(hashes)
            start, stop = number * block_size, (number + 1) * block_size
            extra, _ = generate_block_hash_extra_keys(request, start, stop, 0)
            if number in of_block:
                extra = (*(extra or ()), ("graft", *of_block[number]))
            before = hashes[-1] if hashes else None
            hashes.append(hash_block_tokens(hash_function, before, request.all_token_ids[start:stop], extra))
        return hashes[known:]

    request._block_hasher = hasher
    request.block_hashes.clear()
    request.update_block_hashes()


def hash_function(config: Any) -> Callable[[Any], bytes]:
    """What vLLM hashes blocks with."""
    from vllm.utils.hashing import get_hash_fn_by_name

    found: Callable[[Any], bytes] = get_hash_fn_by_name(config.cache_config.prefix_caching_hash_algo)
    return found


def cpu_places(layer: "torch.Tensor", block_size: int) -> "torch.Tensor":
    """Where vLLM's CPU kernel puts each element of a token's key and value within a block of one head.

    The kernel writes a block whose elements are all different, which shows its layout.

    Returns:
        [block size, key and value]
    """
    import torch
    import vllm._custom_ops as ops
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    width, count = layer.shape[3] // 2, block_size * (layer.shape[3] // 2)
    bits = {2: torch.int16, 4: torch.int32}[layer.dtype.itemsize]
    if count > 1 << 15:
        raise RuntimeError(
            f"blocks of {block_size} tokens are too large to find their layout; start with block_size=32"
        )
    codes = torch.arange(count).to(bits).view(layer.dtype).reshape(block_size, 1, width).contiguous()
    block = torch.zeros(1, 1, 2 * block_size, width, dtype=layer.dtype)
    keys, values = block.chunk(2, dim=2)
    isa = _get_attn_isa(layer.dtype, block_size, width)
    ops.cpu_attn_reshape_and_cache(codes, codes, keys, values, torch.arange(block_size), isa)
    seen = block.reshape(2, count).view(bits).long()
    if not (seen.sort(dim=1).values == torch.arange(count)).all():
        raise RuntimeError("vLLM's CPU kernel does not lay out a block as a permutation of its tokens")
    places = seen.argsort(dim=1).reshape(2, block_size, width)  # of code t * width + d
    places[1] += count
    return torch.cat([places[0], places[1]], dim=1)
