"""Every reply that a run got, in a JSONL file: a run that goes on asks only what has no reply yet."""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from pydantic import ValidationError

from parallel_reason import InputError
from parallel_reason.record import FrozenRecord


class Reply(FrozenRecord):
    """What a model answered.

    Attributes:
        ended: whether it came to its own end; otherwise a bound cut it.
        prompt_tokens, sampled_tokens: what it cost.
    """

    text: str
    ended: bool = True
    prompt_tokens: int = 0
    sampled_tokens: int = 0


class StoredReply(FrozenRecord):
    """A line of the file.

    Attributes:
        id: of the sample.
        stage, part: which question of the pipeline; ``attempt`` counts from 0.
        digest: of the messages; a question that changed has no reply.
        refused: why the reply could not be used; None if it was.
    """

    id: str
    stage: str
    part: int
    attempt: int
    digest: str
    refused: str | None = None
    reply: Reply

    @property
    def question(self) -> "Question":
        """What it answers."""
        return Question(self.id, self.stage, self.part, self.attempt, self.digest)


class Question(NamedTuple):
    """What a reply is found by."""

    id: str
    stage: str
    part: int
    attempt: int
    digest: str


def digest(messages: list[dict[str, Any]]) -> str:
    """Of the messages that are sent, 16 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(messages).encode(), digest_size=8).hexdigest()


class ReplyStore:
    """The file, open for one run: a second run on it is refused until the first has ended.

    Attributes:
        stored: all of it, by question.
    """

    def __init__(self, path: Path) -> None:
        """Read it, and drop what a killed run left of a last line.

        Raises:
            InputError: another run has it, it cannot be written, or a line of it is no reply.
        """
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
        try:
            self.stored = {one.question: one for one in self._whole_lines(path)}
        except BaseException:
            os.close(self._file)  # which ends the lock too
            raise

    def _whole_lines(self, path: Path) -> Iterator[StoredReply]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another run writes {path}; wait for it, or give another folder as out") from None
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        os.ftruncate(self._file, len(whole))
        for number, line in enumerate(whole.split(b"\n")[:-1], 1):
            yield _read(path, number, line)

    def add(self, stored: StoredReply) -> None:
        """Append a line: all of it, or nothing.

        Raises:
            OSError: the disk is full, or the file cannot be written any more.
        """
        line = stored.model_dump_json().encode() + b"\n"
        end = os.fstat(self._file).st_size
        try:
            done = 0
            while done < len(line):
                done += os.write(self._file, line[done:])
        except OSError:
            os.ftruncate(self._file, end)
            raise
        self.stored[stored.question] = stored

    def usage(self) -> dict[str, int]:
        """Requests and tokens of all replies, those of earlier attempts at this run too."""
        replies = [one.reply for one in self.stored.values()]
        return {
            "requests": len(replies),
            "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
            "sampled_tokens": sum(reply.sampled_tokens for reply in replies),
        }

    def refusals(self) -> Counter[str]:
        """How many replies could not be used, by stage and reason."""
        return Counter(f"{one.stage}: {one.refused}" for one in self.stored.values() if one.refused is not None)

    def __enter__(self) -> "ReplyStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def _read(path: Path, number: int, line: bytes) -> StoredReply:
    try:
        return StoredReply.model_validate_json(line)
    except ValidationError as error:
        raise InputError(f"{path}, line {number}: {error.errors()[0]['msg']}") from None
