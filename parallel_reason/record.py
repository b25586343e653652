"""The base of every record this package writes or reads.

Unknown keys are refused, values are checked when a record is made, and equality is by value, so a record that went
through JSON equals the one that was written.
"""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A typed record: unknown keys are an error, never dropped in silence."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


class FrozenRecord(Record):
    """A record that never changes once made: limits and sampling parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)
