"""Prompts from the arguments, a file or a pipe."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from parallel_reason.errors import InputError

LINE_BREAK = re.compile("\r\n|\r|\n")  # not what str.splitlines breaks at, such as U+2028, which texts may hold
STDIN = Path("-")


def read_prompts(given: Sequence[str], file: Path | None) -> list[str]:
    """The prompts given as arguments; without any, the lines of a file or of standard input that are not blank.

    Raises:
        InputError: there is no prompt, both were given, or the file cannot be read as UTF-8.
    """
    if given and file:
        raise InputError("give prompts as arguments or by --file, not both")
    if given:
        return list(given)
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError("no prompt: give one as an argument, by --file, or through a pipe")
    name = "standard input" if file in (None, STDIN) else str(file)
    prompts = [line for line in read_lines(STDIN if file is None else file, name) if line.strip()]
    if not prompts:
        raise InputError(f"{name} has no prompt")
    return prompts


def read_lines(file: Path, name: str) -> list[str]:
    """Lines of UTF-8 text, without a byte order mark; ended by line feed, carriage return, or both.

    Args:
        file: ``-`` is standard input.
        name: of the file, for messages.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    try:
        return LINE_BREAK.split(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = len(LINE_BREAK.split(error.object[: error.start].decode("utf-8")))
        wrong = error.object[error.start]
        raise InputError(f"cannot read {name}: not UTF-8, byte 0x{wrong:02x} in line {line}") from None
