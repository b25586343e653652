"""Grammars in which models fork and join. One file each; other packages add theirs by an entry point.

A package that declares

    [project.entry-points."parallel_reason.dialects"]
    mine = "my_package.mine:Mine"

makes ``dialect="mine"`` work wherever a dialect is named.
"""

from dataclasses import MISSING, fields
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from parallel_reason.dialects.apr import Apr
from parallel_reason.dialects.base import Dialect
from parallel_reason.dialects.multiverse import Multiverse
from parallel_reason.dialects.npr import Npr
from parallel_reason.dialects.parallel_r1 import ParallelR1
from parallel_reason.dialects.parathinker import ParaThinker
from parallel_reason.dialects.spawn_join import SpawnJoin
from parallel_reason.dialects.threadweaver import ThreadWeaver
from parallel_reason.errors import InputError

OWN: tuple[type[Any], ...] = (SpawnJoin, Apr, Multiverse, Npr, ThreadWeaver, ParallelR1, ParaThinker)


@cache
def known() -> dict[str, Any]:
    """Every dialect by name; one of ours is never replaced. Entry points are loaded when they are asked for."""
    return {
        **{point.name: point for point in entry_points(group="parallel_reason.dialects")},
        **{d.name: d for d in OWN},
    }


def find(name: str) -> type[Any]:
    """A dialect by name, before anything slow begins.

    Raises:
        InputError: an unknown dialect, or one whose package cannot be imported.
    """
    if name not in known():
        raise InputError(f"unknown dialect {name!r}; there is {', '.join(known())}")
    found = known()[name]
    if isinstance(found, type):
        return found
    try:
        return found.load()  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        package = found.dist.name if found.dist else found.value
        raise InputError(f"dialect {name!r} of {package} cannot be loaded: {error}") from None


def grafts(name: str, **options: Any) -> bool:
    """Whether a dialect joins by graft under these options, which `bind` has yet to check.

    Raises:
        InputError: as `find`.
    """
    return bool(find(name).joins_by(**options) == "graft")


def bind(name: str, tokenizer: Any, **options: Any) -> Dialect:
    """A dialect, by name, in a model's vocabulary.

    Raises:
        InputError: an unknown dialect, or an option it does not have.
        ModelError: the vocabulary lacks its control tokens.
    """
    dialect = find(name)
    allowed = [field.name for field in fields(dialect) if field.default is not MISSING]
    unknown = next((option for option in options if option not in allowed), None)
    if unknown is not None:
        there = f"it has {', '.join(allowed)}" if allowed else "it has none"
        raise InputError(f"dialect {name!r} has no option {unknown!r}; {there}")
    try:
        return dialect.bind(tokenizer, **options)  # type: ignore[no-any-return]
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"dialect {name!r}, option {first['loc'][-1]!r}={first['input']!r}: {first['msg']}") from None
