"""A model loaded for a command: what can be refused is refused before its engine spends time on starting."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from parallel_reason.cli.chat import Call, check_prompts, sent_raw
from parallel_reason.cli.console import print_note, status
from parallel_reason.cli.options import OPTIONS
from parallel_reason.cli.settings import engine_options, settings
from parallel_reason.dialects import bind, find
from parallel_reason.engines import EMBEDDED, early_tokenizer
from parallel_reason.limits import Limits

if TYPE_CHECKING:
    from parallel_reason.llm import ParallelLLM


def is_embedded(params: Mapping[str, Any]) -> bool:
    """Whether a command runs the embedded model."""
    return params["model"] is None and params["engine"] != "openai"


def load(params: Mapping[str, Any], call: Call, limits: Limits) -> "ParallelLLM":
    """Load the model that a command's parameters ask for, to run a call.

    Args:
        params: ``model``, ``dialect``, ``option``, ``engine``, ``dtype``, ``engine_option`` and ``chat`` of `options`.

    Raises:
        InputError, ModelError, EngineError: naming what is wrong and the fix.
    """
    model, dialect, engine = params["model"], params["dialect"], params["engine"]
    of_dialect = settings(OPTIONS, params["option"], reserved=("name", "tokenizer"))
    of_engine = engine_options(params["engine_option"], params["dtype"])
    if dialect is not None:
        find(dialect)
    name = model or ("the model of the server" if engine == "openai" else "the embedded Countdown model")
    with status(f"loading {name} on {engine}"):
        tokenizer = asyncio.run(early_tokenizer(engine, model, **of_engine))
        if tokenizer is not None:
            if dialect is not None:
                bind(dialect, tokenizer, **of_dialect)
            check_prompts(call, tokenizer, model or str(EMBEDDED), limits)
            if sent_raw(call, tokenizer, params["chat"]):
                print_note(f"{name} has a chat template, and the prompt is sent without it: add --chat, or --no-chat")
        from parallel_reason.llm import ParallelLLM

        return ParallelLLM(model, dialect=dialect, dialect_options=of_dialect, engine=engine, **of_engine)
