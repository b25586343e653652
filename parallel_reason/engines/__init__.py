"""Engines decode threads: token ids in, token ids and log-probs out. One file each, imported when it is started."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from parallel_reason.engines.base import Engine
from parallel_reason.errors import EngineError, InputError

EMBEDDED = Path(__file__).parents[1] / "models" / "countdown"
ENGINES = ("vllm", "torch", "openai")


async def start(name: str, model: str | None, **options: Any) -> Engine:
    """Start an engine by name; the embedded model, or what the servers of ``openai`` have, if ``model`` is None.

    Raises:
        InputError: an unknown engine, or an option it does not have.
        ModelError, EngineError: from the engine.
    """
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}; there is {', '.join(ENGINES)}")
    if name == "torch":
        from parallel_reason.engines.torch import TorchEngine

        _check(name, TorchEngine.start, options)
        return await TorchEngine.start(model or str(EMBEDDED), **options)
    if name == "openai":
        try:
            from parallel_reason.engines.openai import OpenAIEngine
        except ImportError as error:
            raise EngineError(f"engine 'openai' is not installed ({error}); install parallel-reason[openai]") from None
        _check(name, OpenAIEngine.start, options)
        return await OpenAIEngine.start(model, **options)
    from parallel_reason.engines.vllm import VllmEngine

    return await VllmEngine.start(model or str(EMBEDDED), **options)


def _check(name: str, begin: Callable[..., Any], options: dict[str, Any]) -> None:
    """Refuse options that an engine does not have, and see that it has those it needs."""
    try:
        signature(begin).bind(None, **options)
    except TypeError as error:
        raise InputError(f"engine {name!r}: {error}") from None
