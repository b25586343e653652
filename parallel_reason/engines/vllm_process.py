"""How vLLM's processes are started: their environment, where their words go, and what they must not run."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# vLLM's own settings, where the user has made none.
DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "1",  # one core for this process, the rest for the model
    "VLLM_NO_USAGE_STATS": "1",
}


def settle_environment(kv_cache_gib: float | None) -> None:
    """Set what vLLM reads when it is imported; what the user set stays."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if kv_cache_gib is not None:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)


@contextlib.contextmanager
def starting(compile: bool) -> Iterator[Path]:
    """Around the start of vLLM's processes, which inherit what is set here for as long as they live.

    - Their standard error goes to a log file, which is yielded; it stays if the start fails.
    - Without ``compile``, torch.compile is off in them: vLLM compiles parts of its sampler even in eager mode, which
      delays the first token by tens of seconds on CPUs.
    - The user's script is hidden from them: spawned processes run it again, unless it has a ``__main__`` guard.
    """
    handle, log = tempfile.mkstemp(prefix="parallel-reason-vllm-", suffix=".log")
    main = sys.modules["__main__"]
    names: dict[str, object] = {n: vars(main)[n] for n in ("__spec__", "__file__") if n in vars(main)}
    dynamo = os.environ.get("TORCHDYNAMO_DISABLE")
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        os.dup2(handle, 2)
        main.__spec__ = None
        vars(main).pop("__file__", None)
        if not compile:
            os.environ["TORCHDYNAMO_DISABLE"] = "1"
        yield Path(log)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(handle)
        vars(main).update(names)
        if dynamo is None:
            os.environ.pop("TORCHDYNAMO_DISABLE", None)


def last_error(log: Path) -> str | None:
    """The newest line of a log that names an error."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if "Error: " in line or "Error(" in line]
    return errors[-1].split("] ")[-1].strip() if errors else None
