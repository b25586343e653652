"""Where prompt files are, and how one is read: TOML that is checked as a whole before any of it is used."""

import os
import tomllib
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from parallel_reason.errors import InputError
from parallel_reason.prompts.template import PromptTemplate

HERE = Path(__file__).parent
FOLDER = HERE / "data" if (HERE / "data").is_dir() else HERE.parents[1] / "prompts"  # of a wheel, or of a checkout
MAX_BYTES = 1 << 18  # of a file
SEQUENTIAL = "none"  # the dialect that never forks, which runs any prompt for comparison


@cache
def names() -> tuple[str, ...]:
    """The prompts that are shipped, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(name_or_path: str | os.PathLike[str], *, dialect: str | None = None) -> PromptTemplate:
    """A prompt by the name under which it is shipped, or from a file.

    Args:
        name_or_path: what is no name of `names` is a path if it ends in ``.toml`` or names a folder.
        dialect: in which it will be used.

    Raises:
        InputError: an unknown name, a file that cannot be read or is no prompt, or a prompt for another dialect.
    """
    template = _read(_path(name_or_path))
    if dialect not in (None, SEQUENTIAL, template.dialect) and template.dialect is not None:
        others = [name for name in names() if _read(FOLDER / f"{name}.toml").dialect == dialect]
        fix = f"use {', '.join(others)}, or" if others else "write a file for it, or"
        raise InputError(
            f"prompt {template.name!r} is for dialect {template.dialect!r}, not {dialect!r}: {fix} choose "
            f"dialect {template.dialect!r}"
        )
    return template


def _path(name_or_path: str | os.PathLike[str]) -> Path:
    given = os.fspath(name_or_path)
    if given in names():
        return FOLDER / f"{given}.toml"
    if isinstance(name_or_path, str) and not given.endswith(".toml") and not os.path.dirname(given):
        raise InputError(f"unknown prompt {given!r}; there is {', '.join(names())}; or give the path of a .toml file")
    return Path(os.path.expanduser(given))


def _read(path: Path) -> PromptTemplate:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # a ValueError is a NUL in the path
        raise InputError(f"cannot read prompt {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"prompt {path} has more than {MAX_BYTES} bytes")
    try:
        fields = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or nested without end
        raise InputError(f"prompt {path} is not TOML in UTF-8: {error}") from None
    try:
        return PromptTemplate(**{"name": path.stem, **fields})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(f"prompt {path}, field {field!r}: {first['msg']}") from None
