"""Starts vLLM with what our requests need."""

import logging
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_reason.engines.vllm import compat, gpu, worker
from parallel_reason.engines.vllm.graft import compat as graft_compat
from parallel_reason.engines.vllm.process import last_error, starting
from parallel_reason.errors import EngineError, InputError, first_line

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


@dataclass(frozen=True, slots=True)
class StartedVllm:
    """A running vLLM.

    Attributes:
        log: standard error of its processes.
        seeded_sampler: whether they draw seeded tokens with `SeededSampler`.
        extended: whether its workers are `WorkerExtension`; not if the caller extends them otherwise.
    """

    llm: "AsyncLLM"
    log: Path
    seeded_sampler: bool
    extended: bool


def start_vllm(
    model: str, options: dict[str, Any], *, kv_cache_gib: int | None, compile: bool | None, graft: bool
) -> StartedVllm:
    """Start it; see `VllmEngine.start`.

    Args:
        options: fields of vLLM's ``AsyncEngineArgs``.
    """
    if options.get("enable_dbo") or options.get("ubatch_size", 1) not in (0, 1):
        raise InputError(
            "engine 'vllm' is not known to be exact where batches are split in two, as several GPUs can: leave out "
            "enable_dbo and ubatch_size"
        )
    platform = import_vllm()
    cpu = bool(platform.is_cpu())
    compile = not cpu if compile is None else compile
    device = {} if cpu else gpu.environment(options.get("dtype"), flashinfer=find_spec("flashinfer") is not None)
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    with starting(compile, kv_cache_gib, graft, device) as log:
        try:
            arguments = AsyncEngineArgs(**(_defaults(model, cpu, compile, graft) | options))
        except TypeError as error:
            log.unlink()
            raise InputError(f"vLLM refuses an option: {error}") from None
        try:
            config = arguments.create_engine_config()
            if graft and (reason := graft_compat.refusal(config)):
                fix = "merge the adapter into the model" if config.lora_config is not None else "use engine='torch'"
                raise InputError(f"engine 'vllm' cannot graft with {model!r}: {reason}; {fix}")
            if platform.is_cuda_alike() and (kv_cache_gib is not None or not options.keys() & set(gpu.SIZES)):
                sizes = gpu.memory(gpu.need_of(config), platform.get_device_total_memory(), kv_cache_gib)
                for name in sizes.keys() - options.keys():
                    setattr(config.cache_config, name, sizes[name])
            seeded_sampler = compat.add_seeded_sampler(config)
            llm = AsyncLLM.from_vllm_config(config, disable_log_stats=arguments.disable_log_stats)
        except InputError:
            log.unlink()
            raise
        except Exception as error:  # vLLM raises bare RuntimeError, ValueError, OSError and others at start
            reason = last_error(log) or first_line(error)
            raise EngineError(
                f"engine 'vllm' could not start {model!r}: {reason}{gpu.advice(reason)} (log: {log})"
            ) from error
    return StartedVllm(llm, log, seeded_sampler, arguments.worker_extension_cls == worker.PATH)


def _defaults(model: str, cpu: bool, compile: bool, graft: bool) -> dict[str, Any]:
    """Fields of ``AsyncEngineArgs`` where the caller has set none."""
    options: dict[str, Any] = {
        "model": model,
        "dtype": "float32" if cpu else "auto",
        "enforce_eager": not compile,
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "disable_log_stats": True,
        "worker_extension_cls": worker.PATH,
    }
    if cpu:
        options["block_size"] = 32  # the smallest that vLLM's CPU attention takes: forks share more of their prefix
    return options | (graft_compat.engine_options() if graft else {})


def import_vllm() -> Any:
    """Import vLLM, which takes seconds; its ``Platform``, of the device on which it will run.

    Raises:
        EngineError: vLLM is not installed, or finds no device that it was built for.
    """
    logging.getLogger("vllm").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(
            f"engine 'vllm' is not installed ({error}); install parallel-reason[cpu] or parallel-reason[gpu]"
        ) from None
    if not current_platform.device_type:
        raise EngineError("engine 'vllm' finds no device: install parallel-reason[cpu] where there is no GPU")
    import vllm.v1.engine.async_llm  # noqa: F401

    return current_platform
