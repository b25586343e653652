"""The base of every record this package writes or reads.

Unknown keys are refused, values are checked when a record is made, and equality is by value, so a record that went
through JSON equals the one that was written.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from parallel_reason.errors import InputError


class Record(BaseModel):
    """A typed record: unknown keys are an error, never dropped in silence."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


class FrozenRecord(Record):
    """A record that never changes once made: limits and sampling parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def from_caller(cls, argument: str, value: "Self | dict[str, Any]") -> Self:
        """What a caller gave: a record, or a dict of its fields.

        Args:
            argument: what the caller calls it, for messages.

        Raises:
            InputError: something else, an unknown field, or a wrong value; in one line.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            kind = type(value)
            of = "" if kind.__module__ == "builtins" else f", a {kind.__qualname__} of {kind.__module__}"
            raise InputError(
                f"{argument} must be a {cls.__name__} of parallel_reason or a dict of its fields, not "
                f"{' '.join(repr(value).split()):.60}{of}"
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                raise InputError(f"{argument} has no field {field!r}; it has {', '.join(cls.model_fields)}") from None
            where = f"{field}={first['input']!r:.60}: " if field else ""
            raise InputError(f"{argument}: {where}{first['msg']}") from None
