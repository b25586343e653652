"""An `EngineRequest` as parameters of a vLLM request."""

import math
from collections.abc import Mapping
from typing import Any

from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.seeded_draw import KEY, OVER_A_THREAD, SeededDraw
from parallel_reason.engines.vllm import compat
from parallel_reason.engines.vllm.messages import Message

_FIRST_AND_LAST = 1 << 30  # tokens between two outputs of a request: its first token and its end are reported anyway


def most_adapters(config: Any) -> float:
    """How many LoRA adapters an engine with this ``VllmConfig`` can use in its life.

    On CPUs vLLM decodes requests without an adapter, beside others that have one, with the adapter in its last slot:
    that slot must stay empty.
    """
    if config.lora_config is None:
        return 0
    return config.lora_config.max_loras - 1 if config.device_config.device_type == "cpu" else math.inf


def refused(config: Any, *, graft: bool, seeded_sampler: bool) -> Mapping[str, str]:
    """Fields of `SamplingParams` that an engine with this ``VllmConfig`` cannot do, and why."""
    reasons = {}
    if graft:
        reasons["lora"] = "KV that a join keeps is of one set of weights; merge the adapter into the model"
    elif most_adapters(config) < 1:
        reasons["lora"] = "start it with enable_lora=True, and on a CPU with max_loras above 1"
    if not seeded_sampler:
        why = "vLLM's model runner V2 counts over one request, not over a thread; set VLLM_USE_V2_MODEL_RUNNER=0"
        reasons |= dict.fromkeys(OVER_A_THREAD, why)
    return reasons


def vllm_sampling_params(
    request: EngineRequest, graft: Message | None, tokenizer: Any, eos_ids: frozenset[int], *, seeded_sampler: bool
) -> Any:
    """The ``SamplingParams`` that vLLM gets for a request.

    vLLM turns no token into text and gets no stop texts: its detokenizer reads the end of the prompt too.

    Args:
        graft: what the connector is to know of the request.
        seeded_sampler: whether `SeededSampler` runs in the engine; it gets what is not vLLM's own sampling.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling, extra_args = request.sampling, dict[str, Any]()
    draw = SeededDraw.of(request, tokenizer, eos_ids) if seeded_sampler and request.max_tokens else None
    if draw is not None:
        extra_args[KEY] = draw.json_text()
        rules: dict[str, Any] = {"temperature": 0.0}  # vLLM takes the one token that the processor leaves
    else:
        rules = _rules(request)
    if graft is not None:
        extra_args["kv_transfer_params"] = graft.parameters()
    return SamplingParams(
        **rules,
        ignore_eos=sampling.ignore_eos,
        max_tokens=max(request.max_tokens, 1),
        stop_token_ids=list(request.stop_ids),
        logprobs=sampling.logprobs,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
        extra_args=extra_args or None,
        **compat.stream_interval(1 if request.stream or request.stop_texts else _FIRST_AND_LAST),
    )


def _rules(request: EngineRequest) -> dict[str, Any]:
    """What vLLM's own sampler does: all that is decided token by token, whatever the request began with."""
    sampling = request.sampling
    allowed = sampling.allowed_token_ids
    seed = None
    if request.seed is not None and sampling.temperature > 0:
        seed = compat.seed_for_runner_v2(request.seed, request.first_draw, len(request.ids))
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "logit_bias": sampling.logit_bias,
        "allowed_token_ids": None if allowed is None else list(allowed),
        "seed": seed,
    }
