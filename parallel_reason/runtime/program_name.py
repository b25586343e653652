"""What a trace says of the program that made it: its name, and its settings if it has any."""

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter

from parallel_reason.errors import InputError


def check_program(program: Any, options: Collection[str], known: type[Any]) -> None:
    """Raise InputError if it can't be called, or if an option is not one of the keys of a ``known`` dictionary."""
    if not callable(program):
        raise InputError(f"a program is an async function of a thread, not {program!r:.60}")
    names = list(known.__annotations__)
    wrong = next((option for option in options if option not in names), None)
    if wrong is not None:
        raise InputError(f"a run of a program takes no {wrong!r}; it takes {', '.join(names)}")


def made_by(program: Any) -> dict[str, Any]:
    """The fields of a trace that name its program."""
    return {"dialect": f"program:{name_of(program)}", "dialect_options": options_of(program)}


def name_of(program: Any) -> str:
    """Its ``name``, or that of its function or class."""
    if isinstance(program, functools.partial):
        return name_of(program.func)
    name = getattr(program, "name", None) or getattr(program, "__name__", None) or type(program).__name__
    return str(name)


def options_of(program: Any) -> dict[str, Any]:
    """The fields of a dataclass, or the keywords of a partial function, as JSON; what JSON lacks as its ``repr``."""
    options: dict[str, Any] = {}
    if isinstance(program, functools.partial):
        options = dict(program.keywords)
    elif dataclasses.is_dataclass(program) and not isinstance(program, type):
        options = {field.name: getattr(program, field.name) for field in dataclasses.fields(program)}
    plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(options, mode="json", fallback=_named)
    return plain


def _named(value: Any) -> str:
    return name_of(value) if callable(value) else repr(value)
