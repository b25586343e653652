"""Files that are whole or not there at all."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from parallel_reason.errors import InputError


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text file beside its place, then put it there.

    Raises:
        InputError: it cannot be written.
    """
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8", newline="") as file:
            file.writelines(parts)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with suppress(OSError):  # it is in its place, or could not be made
            beside.unlink()


def compact(value: Any) -> str:
    """A value as JSON without blanks, lone surrogates as escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()
