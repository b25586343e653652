"""Engines decode threads: token ids in, token ids and log-probs out. Each is imported when it is started."""

import os
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from parallel_reason.engines.base import Engine
from parallel_reason.errors import EngineError, InputError

EMBEDDED = Path(__file__).parents[1] / "models" / "countdown"
ENGINES = ("vllm", "torch", "openai")


async def start(name: str, model: str | None = None, **options: Any) -> Engine:
    """Start an engine by name.

    Args:
        model: a folder in Hugging Face layout or a Hub id; if None, the embedded model, or for ``openai`` the model
            that its servers have.
        options: of the engine's own ``start``.

    Raises:
        InputError: an unknown engine, or an option it does not have.
        ModelError: nothing can be loaded from ``model``, or the engine cannot run it.
        EngineError: the engine is not installed, or did not start.
    """
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}; there is {', '.join(ENGINES)}")
    if model is not None and model.startswith("~"):
        model = os.path.expanduser(model)
    if name == "torch":
        from parallel_reason.engines.torch.engine import TorchEngine

        _check_options(name, TorchEngine.start, options)
        return await TorchEngine.start(model or str(EMBEDDED), **options)
    if name == "openai":
        try:
            from parallel_reason.engines.openai.engine import OpenAIEngine
        except ImportError as error:
            raise EngineError(f"engine 'openai' is not installed ({error}); install parallel-reason[openai]") from None
        _check_options(name, OpenAIEngine.start, options)
        return await OpenAIEngine.start(model, **options)
    from parallel_reason.engines.vllm.engine import VllmEngine

    return await VllmEngine.start(model or str(EMBEDDED), **options)  # what it does not name goes to vLLM, which checks


def _check_options(name: str, start: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raise InputError for options that an engine does not have or that it needs and are missing."""
    try:
        signature(start).bind(None, **options)
    except TypeError as error:
        raise InputError(f"engine {name!r}: {error}") from None
