"""Settings on the command line: checked records, and ``name=value`` texts as TOML values."""

import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, time
from typing import Any, TypeVar

from pydantic import ValidationError

from parallel_reason.cli.options import CHAT_OPTIONS, ENGINE_OPTIONS, OPTIONS, SAMPLING
from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams

T = TypeVar("T", Limits, SamplingParams)

OF_PYTHON = {"True": "true", "False": "false", "None": "leave the option out"}
EXAMPLES = {
    OPTIONS: "join_on=first",
    ENGINE_OPTIONS: "context=4096",
    CHAT_OPTIONS: "enable_thinking=false",
    SAMPLING: "min_tokens=8",
}
SAMPLING_FLAGS = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "stop",
    "max_tokens", "n", "seed", "logprobs",
)  # fmt: skip
NOT_ENGINE_OPTIONS = ("self", "model", "dialect", "dialect_options", "engine", "limits", "name", "dtype")


def sampling_params(given: Mapping[str, Any], texts: Iterable[str] | None = None) -> SamplingParams:
    """Sampling parameters from a command's parameters, and the fields that have no option of their own from texts.

    Raises:
        InputError: see `checked` and `settings`.
    """
    flags = {name: given[name] for name in SAMPLING_FLAGS if name in given}
    return checked(SamplingParams, flags, settings(SAMPLING, texts, reserved=SAMPLING_FLAGS))


def limits_of(given: Mapping[str, Any]) -> Limits:
    """Limits from a command's parameters.

    Raises:
        InputError: see `checked`.
    """
    return checked(Limits, {name: given[name] for name in Limits.model_fields if name in given})


def checked(kind: type[T], flags: Mapping[str, Any], named: Mapping[str, Any] | None = None) -> T:
    """A record of settings; fields that were not given keep their defaults.

    Args:
        flags: fields that have an option of their own; None or an empty list if it was not given.
        named: fields that were written after ``--sampling``.

    Raises:
        InputError: a wrong value, named as its option of the command line.
    """
    given = {name: value for name, value in flags.items() if value is not None and value != []}
    try:
        return kind(**given, **(named or {}))
    except ValidationError as error:
        first = error.errors()[0]
        field, *inner = map(str, first["loc"])
        if field in flags:
            raise InputError(f"--{field.replace('_', '-')} {first['input']}: {first['msg'].lower()}") from None
        if first["type"] == "extra_forbidden":
            raise InputError(f"{SAMPLING} {'.'.join([field, *inner])}: SamplingParams has no such field") from None
        raise InputError(f"{SAMPLING} {'.'.join([field, *inner])}: {first['msg'].lower()}") from None


def engine_options(texts: Iterable[str] | None, dtype: str | None) -> dict[str, Any]:
    """Options of the engine from ``--engine-option`` and ``--dtype``.

    Raises:
        InputError: see `settings`.
    """
    found = settings(ENGINE_OPTIONS, texts, reserved=NOT_ENGINE_OPTIONS)
    return found if dtype is None else {**found, "dtype": dtype}


def settings(flag: str, texts: Iterable[str] | None, reserved: Iterable[str] = ()) -> dict[str, Any]:
    """``name=value`` texts of one option of the command line, values as `toml_value` reads them.

    Args:
        flag: the option, for messages.
        reserved: names that have an option of their own.

    Raises:
        InputError: a text of another form, or a reserved name.
    """
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"{flag} {text}: write it as name=value, such as {EXAMPLES.get(flag, EXAMPLES[OPTIONS])}")
        if name in reserved:
            raise InputError(f"{flag} {text}: {name!r} cannot be given this way")
        if value in OF_PYTHON:
            instead = OF_PYTHON[value]
            fix = instead if value == "None" else f"write {name}={instead}"
            raise InputError(f"{flag} {text}: values are TOML; {fix}")
        found[name] = toml_value(value)
    return found


def toml_value(text: str) -> Any:
    """A boolean, number, quoted text, array or inline table of TOML; what is none of these stays text."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = document["value"]
    return text if len(document) > 1 or isinstance(value, date | time) else value
