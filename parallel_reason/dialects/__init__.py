"""The grammars in which models fork and join, one file each. Other packages add theirs by an entry point.

A package that declares

    [project.entry-points."parallel_reason.dialects"]
    mine = "my_package.mine:Mine"

makes ``dialect="mine"`` work wherever a dialect is named. A class, or a dialect that was bound already, may stand
wherever a name may. ``none`` is no grammar: the sequential baseline.
"""

from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from parallel_reason.dialects.apr import Apr
from parallel_reason.dialects.async_think import AsyncThink
from parallel_reason.dialects.base import Dialect
from parallel_reason.dialects.dc_cot import DcCot
from parallel_reason.dialects.multiverse import Multiverse
from parallel_reason.dialects.none import Sequential
from parallel_reason.dialects.npr import Npr
from parallel_reason.dialects.options import option_names, options_of
from parallel_reason.dialects.parallel_r1 import ParallelR1
from parallel_reason.dialects.parathinker import ParaThinker
from parallel_reason.dialects.spawn_join import SpawnJoin
from parallel_reason.dialects.ssft import Ssft
from parallel_reason.dialects.threadweaver import ThreadWeaver
from parallel_reason.errors import InputError, ModelError

__all__ = ["BUILT_IN", "AnyDialect", "Dialect", "SpawnJoin", "bind", "find", "grafts", "known", "options_of"]

AnyDialect = str | type[Any] | Dialect

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

_EVERY: tuple[type[Any], ...] = (*BUILT_IN, Sequential)


@cache
def known() -> dict[str, Any]:
    """Every dialect by name: a class, or an entry point that is not loaded yet. Built-in names cannot be replaced."""
    return {
        **{point.name: point for point in entry_points(group="parallel_reason.dialects")},
        **{dialect.name: dialect for dialect in _EVERY},
    }


def find(dialect: AnyDialect) -> type[Any]:
    """The class of a dialect; an entry point is loaded. Needs no model, so a wrong name fails before one is loaded.

    Raises:
        InputError: an unknown dialect, one whose package cannot be imported, or a class or an object that is none.
    """
    if not isinstance(dialect, str):
        found = dialect if isinstance(dialect, type) else type(dialect)
        lacking = [part for part in ("name", "bind", "joins_by", "stops", "step", "join") if not hasattr(dialect, part)]
        if lacking:
            raise InputError(f"{dialect!r:.60} is no dialect: it has no {', '.join(lacking)}")
        return found
    if dialect not in known():
        raise InputError(f"unknown dialect {dialect!r}; there is {', '.join(known())}")
    named = known()[dialect]
    if isinstance(named, type):
        return named
    try:
        return named.load()  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        package = named.dist.name if named.dist else named.value
        raise InputError(f"dialect {dialect!r} of {package} cannot be loaded: {error}") from None


def grafts(dialect: AnyDialect, /, **options: Any) -> bool:
    """Whether a dialect joins by graft under these options, which are not checked here but by `bind`.

    Raises:
        InputError: as `find`.
    """
    found = find(dialect)
    return bool((found.joins_by(**options) if isinstance(dialect, str | type) else dialect.join_rule) == "graft")


def bind(dialect: AnyDialect, tokenizer: Any, /, **options: Any) -> Dialect:
    """A dialect bound to a model's vocabulary; one that is bound already stays as it is.

    Raises:
        InputError: an unknown dialect, an option that it does not have, or a value that the option does not take.
        ModelError: the vocabulary lacks its control tokens; names the dialects that it can write.
    """
    found = find(dialect)
    if not isinstance(dialect, str | type):
        if options:
            raise InputError(f"dialect {dialect.name!r} is bound already and takes no option {next(iter(options))!r}")
        return dialect
    allowed = option_names(found)
    unknown = next((option for option in options if option not in allowed), None)
    if unknown is not None:
        has = f"it has {', '.join(allowed)}" if allowed else "it has none"
        raise InputError(f"dialect {found.name!r} has no option {unknown!r}; {has}")
    try:
        return found.bind(tokenizer, **options)  # type: ignore[no-any-return]
    except ModelError as error:
        raise ModelError(f"{error}: this tokenizer can write {', '.join(_written_by(tokenizer))}") from None
    except ValidationError as error:
        first = error.errors()[0]
        wrong = f"option {first['loc'][-1]!r}={first['input']!r}"
        raise InputError(f"dialect {found.name!r}, {wrong}: {first['msg']}") from None


def _written_by(tokenizer: Any) -> list[str]:
    """The names of the dialects of this package that a tokenizer can write."""
    able = []
    for dialect in _EVERY:
        with suppress(ModelError):
            dialect.bind(tokenizer)
            able.append(dialect.name)
    return able
