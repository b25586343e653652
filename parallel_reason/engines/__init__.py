"""Engines decode threads: token ids in, token ids and log-probs out. Each is imported when it is started."""

import os
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from parallel_reason.engines.base import Engine
from parallel_reason.errors import EngineError, InputError, first_line

EMBEDDED = Path(__file__).parents[1] / "models" / "countdown"
ENGINES = ("vllm", "torch", "openai")


async def start(name: str, model: str | None = None, /, **options: Any) -> Engine:
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

    _check_options(name, VllmEngine.start, options)
    return await VllmEngine.start(model or str(EMBEDDED), **options)  # what it does not name goes to vLLM, which checks


def _check_options(name: str, start: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raise InputError for options that an engine does not have, that it lacks, or that are of the wrong type.

    An engine that takes further options by ``**`` checks those itself.
    """
    try:
        signature(start).bind(None, **options)
    except TypeError as error:
        raise InputError(f"engine {name!r}: {error}") from None
    types = get_type_hints(start)
    for option in options.keys() & signature(start).parameters.keys():
        try:
            TypeAdapter(types[option]).validate_python(options[option], strict=True)
        except ValidationError as error:
            raise InputError(f"engine {name!r}, option {option}={options[option]!r}: {first_line(error)}") from None
