"""Settings on the command line: checked records, and options of engines and dialects as TOML values."""

import tomllib
from collections.abc import Iterable
from datetime import date, time
from typing import Any, TypeVar

from pydantic import ValidationError

from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams

T = TypeVar("T", Limits, SamplingParams)

OF_PYTHON = {"True": "true", "False": "false", "None": "leave the option out"}


def checked(kind: type[T], **given: Any) -> T:
    """A record of settings; those that are None keep their defaults.

    Raises:
        InputError: a wrong value, named as its option of the command line.
    """
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{option} {first['input']}: {first['msg'].lower()}") from None


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
            example = "join_on=first" if flag == "--option" else "context=4096"
            raise InputError(f"{flag} {text}: write it as name=value, such as {example}")
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
