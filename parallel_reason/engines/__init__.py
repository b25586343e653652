"""Engines decode threads: token ids in, token ids and log-probs out. One file each, imported when it is started."""

from pathlib import Path
from typing import Any

from parallel_reason.engines.base import Engine
from parallel_reason.errors import InputError

EMBEDDED = Path(__file__).parents[1] / "models" / "countdown"
ENGINES = ("vllm", "torch")


async def start(name: str, model: str | None, **options: Any) -> Engine:
    """Start an engine by name; the embedded model if ``model`` is None.

    Raises:
        InputError: an unknown engine, or an option it does not have.
        ModelError, EngineError: from the engine.
    """
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}; there is {', '.join(ENGINES)}")
    if name == "torch":
        from parallel_reason.engines.torch import TorchEngine

        return await TorchEngine.start(model or str(EMBEDDED), **options)
    from parallel_reason.engines.vllm import VllmEngine

    return await VllmEngine.start(model or str(EMBEDDED), **options)
