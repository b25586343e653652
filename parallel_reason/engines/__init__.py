"""Engines decode threads: token ids in, token ids and log-probs out. Each is imported when it is started."""

import asyncio
import os
from collections.abc import Callable
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from parallel_reason.engines.base import Engine
from parallel_reason.engines.models import ADD_TOKENIZER, check_model, load_tokenizer
from parallel_reason.errors import EngineError, InputError, first_line

EMBEDDED = Path(__file__).parents[1] / "models" / "countdown"
ENGINES = ("vllm", "torch", "openai")


# Options of vLLM under which a tokenizer is not what `load_tokenizer` gives.
OWN_TOKENIZER = {"revision", "skip_tokenizer_init", "tokenizer_mode", "tokenizer_revision", "trust_remote_code"}


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
    starting = await asyncio.to_thread(_starting, name, options)
    return await starting(_located(name, model), **options)  # type: ignore[no-any-return]


async def early_tokenizer(name: str, model: str | None = None, /, **options: Any) -> Any | None:
    """The tokenizer with which `start` will load a model, before anything slow.

    Returns:
        None where only the engine can tell: by its servers (``openai``), under `OWN_TOKENIZER`, or not installed.

    Raises:
        InputError, ModelError, EngineError: as `start`, as far as they can be known by now.
    """
    await asyncio.to_thread(_starting, name, options)
    folder = _located(name, model)
    if name == "openai" or folder is None or OWN_TOKENIZER & options.keys() or find_spec("transformers") is None:
        return None
    check_model(folder)
    place = options.get("tokenizer") or folder
    return await asyncio.to_thread(load_tokenizer, place, ADD_TOKENIZER)


def _starting(name: str, options: dict[str, Any]) -> Callable[..., Any]:
    """What starts an engine with these options; the engine is imported."""
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}; there is {', '.join(ENGINES)}")
    found: Callable[..., Any]
    if name == "torch":
        from parallel_reason.engines.torch.engine import TorchEngine

        found = TorchEngine.start
    elif name == "openai":
        try:
            from parallel_reason.engines.openai.engine import OpenAIEngine
        except ImportError as error:
            raise EngineError(f"engine 'openai' is not installed ({error}); install parallel-reason[openai]") from None
        found = OpenAIEngine.start
    else:
        from parallel_reason.engines.vllm.engine import VllmEngine

        found = VllmEngine.start
    _check_options(name, found, options)  # what vLLM's does not name goes to vLLM, which checks
    return found


def _located(name: str, model: str | None) -> str | None:
    """Where a model is loaded from."""
    if model is None:
        return None if name == "openai" else str(EMBEDDED)
    return os.path.expanduser(model) if model.startswith("~") else model


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
