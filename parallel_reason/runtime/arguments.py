"""What a caller may give to a session beside prompts, checked; and the names of it, for faces that pass it on."""

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypedDict

from parallel_reason.dialects import AnyDialect
from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.prepared import dialect_of
from parallel_reason.runtime.chat import ChatOptions
from parallel_reason.runtime.program import Program
from parallel_reason.runtime.prompts import TemplateName
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

AnySampling = SamplingParams | dict[str, Any]
AnyLimits = Limits | dict[str, Any]
AnyChat = ChatOptions | dict[str, Any]
OnTrace = Callable[[Trace], None]


# What a person writes may fork more than what a model writes.
OF_PROGRAMS = {"forks": 1_000_000, "depth": 64, "children": 100_000}


class StreamOptions(TypedDict, total=False):
    """What `Session.stream` takes by name."""

    prompt: TemplateName | None
    chat: AnyChat | None
    task: str | None
    program: Program | None


class RunOptions(TypedDict, total=False):
    """What `Session.run` takes by name."""

    prompt: TemplateName | None
    chat: AnyChat | None
    tasks: Sequence[str] | None
    skip: Collection[tuple[str, int]]
    on_trace: OnTrace | None


def sampling_of(given: AnySampling | None) -> SamplingParams:
    """The parameters that a caller gave; greedy if None.

    Raises:
        InputError: something else, such as vLLM's own ``SamplingParams``, which has other defaults.
    """
    return SamplingParams() if given is None else SamplingParams.from_caller("sampling", given)


def limits_of(given: AnyLimits | None, default: Limits) -> Limits:
    """The bounds that a caller gave; ``default`` if None.

    Raises:
        InputError: something else.
    """
    return default if given is None else Limits.from_caller("limits", given)


def limits_of_program(given: AnyLimits | None, default: Limits) -> Limits:
    """The bounds of a trace that a program makes: `OF_PROGRAMS` where nobody gave that field.

    Raises:
        InputError: as `limits_of`.
    """
    limits = limits_of(given, default)
    return limits.model_copy(
        update={key: value for key, value in OF_PROGRAMS.items() if key not in limits.model_fields_set}
    )


def check_traces_at_once(given: int) -> None:
    """Raise InputError if it is no count of at least one."""
    if not isinstance(given, int) or given < 1:
        raise InputError(f"traces_at_once must be an integer of at least 1, not {given!r:.60}")


async def chosen_dialect(
    model: str | None, dialect: AnyDialect | None, options: dict[str, Any], engine: str
) -> tuple[AnyDialect, dict[str, Any]]:
    """The dialect to run a model in, and its options: what was asked for, or else what the model was prepared for.

    Raises:
        ModelError: what the model's folder says of it cannot be read.
    """
    if dialect is not None:
        return dialect, options
    found = None
    if model is not None and engine != "openai":  # to a server it is a name
        found = await asyncio.to_thread(dialect_of, os.path.expanduser(model))
    name, own = found or ("spawn_join", {})
    return name, own | options
