"""How vLLM's processes are started: what they inherit, where they log, and what ends them."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

GRAFT = "PARALLEL_REASON_GRAFT"  # set in the environment of vLLM's processes: models can graft
OWNER = "PARALLEL_REASON_OWNER"  # this too: the process that started them

# vLLM's own settings, where the user has made none.
DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "1",  # one core for this process, the rest for the model
    "VLLM_NO_USAGE_STATS": "1",
}


def register() -> None:
    """The entry point ``vllm.general_plugins``: vLLM calls it in each of its processes before it loads a model.

    It does nothing in processes that were not started within `starting`.
    """
    owner = int(os.environ.get(OWNER, 0))
    if os.getppid() == owner:
        signal.signal(signal.SIGURG, lambda *_: None)
        threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    if os.environ.get(GRAFT):
        from parallel_reason.engines.vllm.graft.positions import register_models

        register_models()


def _end_with(owner: int) -> None:
    """End this process, and so its children, when its owner was killed and could not close the engine.

    Until then, wake the main thread every second: a signal to end the process that arrives on another thread does not
    wake it from waiting for a request, and Python handles signals on the main thread only.
    """
    while os.getppid() == owner:
        time.sleep(1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def starting(
    compile: bool, kv_cache_gib: int | None, graft: bool = False, device: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """Around the start of vLLM's processes, which inherit what is set here for as long as they live.

    - Their standard error goes to a log file, whose path is yielded.
    - Without ``compile``, torch.compile is off in them: vLLM compiles parts of its sampler even in eager mode, which
      delays the first token by tens of seconds on CPUs.
    - With ``graft``, models are loaded so that joins can graft.
    - The user's script is hidden from them: spawned processes run it again, unless it has a ``__main__`` guard.
    - ``device`` has more settings of vLLM's for this device, where the user has made none.
    """
    defaults = DEFAULTS | dict(device or {})
    settings = {OWNER: str(os.getpid())} | {name: os.environ.get(name, value) for name, value in defaults.items()}
    if kv_cache_gib is not None:
        settings["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)
    if graft:
        settings[GRAFT] = "1"
    if not compile:
        settings["TORCHDYNAMO_DISABLE"] = "1"
    handle, log = tempfile.mkstemp(prefix="parallel-reason-vllm-", suffix=".log")
    with _environment(settings), _main_module_hidden(), _standard_error_to(handle):
        yield Path(log)


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    main = vars(sys.modules["__main__"])
    saved: dict[str, object] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(saved)


@contextlib.contextmanager
def _standard_error_to(handle: int) -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(handle, 2)
    os.close(handle)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


def last_error(log: Path) -> str | None:
    """The newest line of a log that names an error, if possible none that refers to a stack trace above it."""
    errors = [line for line in log.read_text(errors="replace").splitlines() if "Error: " in line]
    causes = [line for line in errors if " above" not in line] or errors
    return causes[-1].split("] ")[-1].strip() if causes else None
