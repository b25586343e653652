"""Options of a dialect: the fields of its dataclass that have a default. A class that is no dataclass has none."""

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from pydantic_core import to_jsonable_python


def option_names(dialect: Any) -> list[str]:
    """The names of the options of a dialect, given as a class or bound."""
    if not is_dataclass(dialect):
        return []
    return [
        field.name
        for field in fields(dialect)
        if field.init and (field.default is not MISSING or field.default_factory is not MISSING)
    ]


def options_of(dialect: Any) -> dict[str, Any]:
    """All options of a bound dialect with their values, defaults too, as JSON values: what a trace records."""
    options = {name: getattr(dialect, name) for name in option_names(dialect)}
    return {name: to_jsonable_python(value, fallback=str) for name, value in options.items()}
