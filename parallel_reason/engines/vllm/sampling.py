"""An `EngineRequest` as parameters of a vLLM request."""

from typing import Any

from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.vllm import compat
from parallel_reason.engines.vllm.messages import Message, SeededDraw

_FIRST_AND_LAST = 1 << 30  # tokens between two outputs of a request: its first token and its end are reported anyway


def vllm_sampling_params(request: EngineRequest, graft: Message | None, seeded_sampler: bool) -> Any:
    """The ``SamplingParams`` that vLLM gets for a request.

    vLLM turns no token into text and gets no stop texts: its detokenizer reads the end of the prompt too.

    Args:
        graft: what the connector is to know of the request.
        seeded_sampler: whether `SeededSampler` runs in the engine.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling, seed = request.sampling, request.seed if request.sampling.temperature > 0 else None
    temperature, extra_args = sampling.temperature, dict[str, Any]()
    if seed is not None and seeded_sampler:
        temperature = 0.0  # vLLM takes the one token that the processor leaves
        draw = SeededDraw(
            seed=seed,
            first_draw=request.first_draw,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
        )
        extra_args |= draw.parameters()
        seed = None
    elif seed is not None:
        seed = compat.seed_for_runner_v2(seed, request.first_draw, len(request.ids))
    if graft is not None:
        extra_args["kv_transfer_params"] = graft.parameters()
    return SamplingParams(
        temperature=temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=seed,
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
