"""The base of every record this package writes or reads.

Unknown keys are refused, values are checked when a record is made, and equality is by value, so a record that went
through JSON equals the one that was written.
"""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from parallel_reason.errors import InputError


class Record(BaseModel):
    """A typed record: unknown keys are an error, never dropped in silence."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


class FrozenRecord(Record):
    """A record that never changes once made: limits and sampling parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Kind = TypeVar("Kind", bound=FrozenRecord)


def given(kind: type[Kind], value: object, name: str) -> Kind:
    """What a caller gave as the argument ``name``, if it is a ``kind``: vLLM has a class of that name too.

    Raises:
        InputError: it is no ``kind``.
    """
    if isinstance(value, kind):
        return value
    what = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
    raise InputError(f"{name} is of type {what}; write {name}=parallel_reason.{kind.__name__}(...), not {value!r:.60}")
