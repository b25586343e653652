"""How vLLM's processes are started: what they inherit, where they log, and what ends them."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar

from parallel_reason.errors import EngineError

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
KILL_EVERY_S = 0.1  # while a start that was given up ends
_one_at_a_time = threading.Lock()
T = TypeVar("T")


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


async def in_thread(start: Callable[[], T]) -> T:
    """Start vLLM in a thread of its own, so that the event loop runs on; one start at a time.

    If this is cancelled, the processes that were started are killed, which ends the start. What it returned all the
    same is dropped: vLLM shuts down an ``AsyncLLM`` that nobody refers to.
    """
    attempt = _Attempt(start)
    running = asyncio.ensure_future(asyncio.to_thread(attempt.run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            attempt.give_up()
            await asyncio.wait([running], timeout=KILL_EVERY_S)
        running.exception()
        raise


class _Attempt(Generic[T]):
    """One start, which can be given up from another thread."""

    def __init__(self, start: Callable[[], T]) -> None:
        self._start = start
        self._others: set[BaseProcess] | None = None  # processes that were there before; None while it does not run
        self._given_up = False

    def run(self) -> T:
        with _one_at_a_time:
            if self._given_up:
                raise EngineError("the start was given up")
            self._others = set(multiprocessing.active_children())
            try:
                return self._start()
            finally:
                self._others = None

    def give_up(self) -> None:
        """Kill what was started so far."""
        self._given_up = True
        others = self._others
        if others is not None:
            for process in set(multiprocessing.active_children()) - others:
                process.kill()


@contextlib.contextmanager
def starting(compile: bool, kv_cache_gib: int | None, graft: bool = False) -> Iterator[Path]:
    """Around the start of vLLM's processes, which inherit what is set here for as long as they live.

    - Their standard error goes to a log file, whose path is yielded.
    - Without ``compile``, torch.compile is off in them: vLLM compiles parts of its sampler even in eager mode, which
      delays the first token by tens of seconds on CPUs.
    - With ``graft``, models are loaded so that joins can graft.
    - The user's script is hidden from them: spawned processes run it again, unless it has a ``__main__`` guard.
    """
    settings = {OWNER: str(os.getpid())} | {name: os.environ.get(name, value) for name, value in DEFAULTS.items()}
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
