"""The grammars in which models fork and join, one file each. Other packages add theirs by an entry point.

A package that declares

    [project.entry-points."parallel_reason.dialects"]
    mine = "my_package.mine:Mine"

makes ``dialect="mine"`` work wherever a dialect is named.
"""

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from parallel_reason.dialects.apr import Apr
from parallel_reason.dialects.async_think import AsyncThink
from parallel_reason.dialects.base import Dialect
from parallel_reason.dialects.dc_cot import DcCot
from parallel_reason.dialects.multiverse import Multiverse
from parallel_reason.dialects.npr import Npr
from parallel_reason.dialects.options import option_names, options_of
from parallel_reason.dialects.parallel_r1 import ParallelR1
from parallel_reason.dialects.parathinker import ParaThinker
from parallel_reason.dialects.spawn_join import SpawnJoin
from parallel_reason.dialects.ssft import Ssft
from parallel_reason.dialects.threadweaver import ThreadWeaver
from parallel_reason.errors import InputError

__all__ = ["BUILT_IN", "Dialect", "SpawnJoin", "bind", "find", "grafts", "known", "options_of"]

BUILT_IN: tuple[type[Any], ...] = (
    SpawnJoin,
    Apr,
    Multiverse,
    Npr,
    ThreadWeaver,
    ParallelR1,
    ParaThinker,
    Ssft,
    DcCot,
    AsyncThink,
)


@cache
def known() -> dict[str, Any]:
    """Every dialect by name: a class, or an entry point that is not loaded yet. Built-in names cannot be replaced."""
    return {
        **{point.name: point for point in entry_points(group="parallel_reason.dialects")},
        **{dialect.name: dialect for dialect in BUILT_IN},
    }


def find(name: str) -> type[Any]:
    """The class of a dialect; an entry point is loaded. Needs no model, so a wrong name fails before one is loaded.

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


def grafts(name: str, /, **options: Any) -> bool:
    """Whether a dialect joins by graft under these options, which are not checked here but by `bind`.

    Raises:
        InputError: as `find`.
    """
    return bool(find(name).joins_by(**options) == "graft")


def bind(name: str, tokenizer: Any, /, **options: Any) -> Dialect:
    """A dialect bound to a model's vocabulary.

    Raises:
        InputError: an unknown dialect, an option that it does not have, or a value that the option does not take.
        ModelError: the vocabulary lacks its control tokens.
    """
    dialect = find(name)
    allowed = option_names(dialect)
    unknown = next((option for option in options if option not in allowed), None)
    if unknown is not None:
        has = f"it has {', '.join(allowed)}" if allowed else "it has none"
        raise InputError(f"dialect {name!r} has no option {unknown!r}; {has}")
    try:
        return dialect.bind(tokenizer, **options)  # type: ignore[no-any-return]
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"dialect {name!r}, option {first['loc'][-1]!r}={first['input']!r}: {first['msg']}") from None
