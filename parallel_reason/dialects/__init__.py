"""Grammars in which models fork and join. One file each."""

from typing import Any

from pydantic import ValidationError

from parallel_reason.dialects.base import Dialect
from parallel_reason.dialects.spawn_join import SpawnJoin
from parallel_reason.errors import InputError

DIALECTS = {SpawnJoin.name: SpawnJoin}


def check(name: str) -> None:
    """Refuse a name that no dialect has, before anything slow begins.

    Raises:
        InputError: an unknown dialect.
    """
    if name not in DIALECTS:
        raise InputError(f"unknown dialect {name!r}; there is {', '.join(DIALECTS)}")


def bind(name: str, tokenizer: Any, **options: Any) -> Dialect:
    """A dialect, by name, in a model's vocabulary.

    Raises:
        InputError: an unknown dialect, or an option it does not have.
        ModelError: the vocabulary lacks its control tokens.
    """
    check(name)
    tag = next((option for option in options if option in DIALECTS[name].tags), None)
    if tag is not None:
        raise InputError(f"dialect {name!r}: {tag!r} is a control token of the model, not an option")
    try:
        return DIALECTS[name].bind(tokenizer, **options)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"dialect {name!r}, option {first['loc'][-1]!r}={first['input']!r}: {first['msg']}") from None
