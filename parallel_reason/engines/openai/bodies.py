"""Bodies of requests to ``/v1/completions``.

The fields are those of ``vllm serve``: OpenAI's, and vLLM's for token ids, stops and top-k. All that bears on sampling
is set in the request, since a server's defaults come from the model's ``generation_config.json``. Stop texts are not
sent: vLLM looks for them in more than the sampled text when the prompt ends within a character.
"""

import hashlib
from typing import Any

from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.seeded_draw import KEY, SeededDraw

INTERVAL = 8  # tokens a chunk where nobody needs them one by one


def decoding_body(
    request: EngineRequest, model: str, eos_ids: frozenset[int] = frozenset(), draw: SeededDraw | None = None
) -> dict[str, Any]:
    """The body of a request for new tokens; at least one, as servers sample no fewer.

    Args:
        model: the name it is served by.
        eos_ids: ends of text of the model: a server may know fewer.
        draw: how the server draws with our own sampler, `parallel_reason.engines.vllm.seeded`; if None, by its own.
    """
    sampling = request.sampling
    one_by_one = request.stream or request.stop_texts
    body = scoring_body(request.ids, sampling.lora or model) | {
        "echo": False,
        "max_tokens": max(1, request.max_tokens),
        "ignore_eos": sampling.ignore_eos,
        "logprobs": sampling.logprobs,
        "stop_token_ids": sorted(request.stop_ids if sampling.ignore_eos else request.stop_ids | eos_ids),
        "stream_interval": 1 if one_by_one else INTERVAL,
    }
    if draw is not None:
        return body | {"top_p": 1.0, "top_k": 0, "seed": None, "vllm_xargs": {KEY: draw.json_text()}}
    seeded = request.seed is not None and sampling.temperature > 0
    body |= {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": request_seed(request.seed or 0, request.first_draw) if seeded else None,
    }
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.allowed_token_ids:
        body["allowed_token_ids"] = list(sampling.allowed_token_ids)
    return body


def scoring_body(ids: list[int], model: str) -> dict[str, Any]:
    """The body of a request for the log-probs of a prompt."""
    return {
        "model": model,
        "prompt": list(ids),
        "echo": True,
        "max_tokens": 0,
        "temperature": 0.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,  # in top_logprobs, where two tokens may have one text
        "skip_special_tokens": False,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def request_seed(seed: int, first_draw: int) -> int:
    """The seed of one request of a thread, 32 bits: a server's generator cannot be continued in the next request."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{first_draw}".encode(), digest_size=4).digest())
