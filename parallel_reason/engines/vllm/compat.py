"""What differs between versions of vLLM, and what it keeps private, as far as plain requests need it."""

import hashlib
from typing import Any

SEEDED_SAMPLER = "parallel_reason.engines.vllm.seeded:SeededSampler"


def version() -> tuple[int, int]:
    """The major and minor version of vLLM that is installed."""
    import vllm

    major, minor = vllm.__version_tuple__[:2]
    return int(major), int(minor)


def stream_interval(tokens: int) -> dict[str, int]:
    """Sampling parameters of a request that reports its tokens so many at a time; before 0.27, always one by one."""
    from vllm import SamplingParams

    return {"stream_interval": tokens} if "stream_interval" in SamplingParams.__struct_fields__ else {}


def vllm_errors() -> tuple[type[Exception], ...]:
    """What vLLM raises for one request, or when it died; before 0.27, without a class of its own for the former."""
    from vllm import exceptions
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    return EngineDeadError, EngineGenerateError, getattr(exceptions, "VLLMError", ValueError), ValueError


def add_seeded_sampler(config: Any) -> bool:
    """Have an engine with this ``VllmConfig`` draw seeded tokens with `SeededSampler`, if model runner V1 will run it.

    Model runner V2 takes no such processor, and needs none: its noise is a function of the seed and of a token's place.
    """
    if config.use_v2_model_runner:
        return False
    model = config.model_config
    model.logits_processors = [*(model.logits_processors or ()), SEEDED_SAMPLER]
    return True


def seed_for_runner_v2(seed: int, first_draw: int, tokens: int) -> int:
    """The ``seed`` that vLLM gets for a request of a thread that begins with so many ids.

    A token's noise is a function of this seed and of the token's place, so a request that is cut in two goes on with
    the noise it would have had, and every other request of the thread gets other noise.
    """
    mixed = hashlib.blake2b(f"{seed}/{first_draw - tokens}".encode(), digest_size=7).digest()
    return int.from_bytes(mixed)


def sampled_tokens(llm: Any, request_id: str) -> int | None:
    """How many new tokens of a request have come to this process; None if vLLM's front end does not know it."""
    processor = llm.output_processor
    states = [processor.request_states.get(internal) for internal in processor.external_req_ids.get(request_id, ())]
    return next((state.detokenizer.num_output_tokens() for state in states if state is not None), None)


def fail_all(llm: Any, error: Exception) -> None:
    """End all requests with an error, on the side of this process."""
    llm.output_processor.propagate_error(error)
