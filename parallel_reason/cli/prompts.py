"""Prompts from the arguments, a file or a pipe."""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from parallel_reason.errors import InputError
from parallel_reason.trace.trace import Message

LINE_BREAK = re.compile("\r\n|\r|\n")  # not what str.splitlines breaks at, such as U+2028, which texts may hold
LAST_BREAK = re.compile("(?:\r\n|\r|\n)\\Z")
STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class GivenPrompt:
    """A prompt as it was given.

    Attributes:
        prompt: a text, or the messages of a chat.
        id: the caller's name for it, if it has one.
        place: where it stands, for messages.
    """

    prompt: str | list[Message]
    id: str | None = None
    place: str = "the prompt"

    @property
    def title(self) -> str:
        """What a person knows it by: its text, or the newest message of the user."""
        if isinstance(self.prompt, str):
            return self.prompt
        said = [message.get("content") for message in self.prompt if message.get("role") == "user"]
        return str(said[-1] if said else self.prompt[-1].get("content"))


class PromptLine(BaseModel):
    """A line of a JSONL file of prompts; keys that are not here are left to others."""

    model_config = ConfigDict(extra="ignore")

    id: str | int | None = None
    prompt: str | list[Message] | None = None
    messages: list[Message] | None = None


def read_prompts(
    given: Sequence[str], file: Path | None, *, lines: bool = False, jsonl: bool = False
) -> list[GivenPrompt]:
    """The prompts given as arguments; without any, those of a file or of standard input.

    Args:
        lines: every line that is not blank is a prompt.
        jsonl: every line is a `PromptLine`, as always in a file that is named ``*.jsonl``. With neither, the whole file
            is one prompt; the line break that ends its last line is not part of it.

    Raises:
        InputError: there is no prompt, both were given, or the file cannot be read.
    """
    if given and (file or lines or jsonl):
        raise InputError("give prompts as arguments or by --file, --lines or --jsonl, not both")
    if lines and jsonl:
        raise InputError("give --lines or --jsonl, not both")
    if given:
        return [GivenPrompt(text, place=f"prompt {number}") for number, text in enumerate(given)]
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError("no prompt: give one as an argument, by --file, or through a pipe")
    name = "standard input" if file in (None, STDIN) else str(file)
    text = read_text(STDIN if file is None else file, name)
    if jsonl or (file is not None and file.suffix == ".jsonl" and not lines):
        prompts = list(_json_lines(text, name))
    elif lines:
        texts = (line for line in LINE_BREAK.split(text) if line.strip())
        prompts = [GivenPrompt(line, place=f"prompt {number}") for number, line in enumerate(texts)]
    else:
        prompts = [GivenPrompt(LAST_BREAK.sub("", text), place=name)] if text.strip() else []
    if not prompts:
        raise InputError(f"{name} has no prompt")
    return prompts


def _json_lines(text: str, name: str) -> Iterator[GivenPrompt]:
    for number, line in enumerate(LINE_BREAK.split(text), start=1):
        if not line.strip():
            continue
        place = f"line {number} of {name}"
        try:
            row = PromptLine.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = f", {first['loc'][0]!r}" if first["loc"] else ""
            raise InputError(f"{place}{where}: {first['msg']}") from None
        prompt = row.prompt if row.messages is None else row.messages
        if not prompt:
            raise InputError(f"{place} has no text under 'prompt' and no chat under 'messages'")
        yield GivenPrompt(prompt, None if row.id is None else str(row.id), place)


def read_lines(file: Path, name: str) -> list[str]:
    """Lines of UTF-8 text; ended by line feed, carriage return, or both.

    Raises:
        InputError: see `read_text`.
    """
    return LINE_BREAK.split(read_text(file, name))


def read_text(file: Path, name: str) -> str:
    """UTF-8 text, without a byte order mark.

    Args:
        file: ``-`` is standard input.
        name: of the file, for messages.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        data: bytes = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(LINE_BREAK.split(error.object[: error.start].decode("utf-8")))
        wrong = error.object[error.start]
        raise InputError(f"cannot read {name}: not UTF-8, byte 0x{wrong:02x} in line {line}") from None


def tasks_of(prompts: Sequence[GivenPrompt]) -> list[str] | None:
    """The ids of prompts; None if they have none.

    Raises:
        InputError: some have one and some have none.
    """
    ids = [prompt.id for prompt in prompts if prompt.id is not None]
    if ids and len(ids) < len(prompts):
        missing = next(prompt for prompt in prompts if prompt.id is None)
        raise InputError(f"{missing.place} has no 'id', and others have one: give each prompt one, or none")
    return ids or None
