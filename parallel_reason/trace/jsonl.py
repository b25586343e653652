"""Traces in JSONL files, one a line: written as they finish, read back, and resumed.

A line is appended by one write, and taken back if the disk had no room for all of it. What a killed process left of its
last line is dropped by the next one.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from parallel_reason.errors import InputError, TraceFileError
from parallel_reason.record import Record
from parallel_reason.trace.trace import Trace
from parallel_reason.trace.version1 import converted

VERSION = 2
SAME = ("model", "engine", "dialect", "dialect_options", "sampling", "limits")  # in all traces of one run
Key = tuple[str, int]


def from_json(line: str | bytes) -> Trace:
    """Read what `Trace.to_json` wrote, or a trace of version 1.

    Raises:
        TraceFileError: not JSON, another version, or a record that breaks an invariant.
    """
    try:
        return Trace.model_validate_json(line)
    except ValidationError as error:
        older = converted(line)
        if older is not None:
            return older
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise TraceFileError(
            f"not a trace of version {VERSION}: {place + ': ' if place else ''}{first['msg']}"
        ) from None


def read_traces(path: str | Path) -> Iterator[Trace]:
    """Traces of a JSONL file, blank lines skipped.

    Raises:
        InputError: the file cannot be opened.
        TraceFileError: naming the file and the line that could not be read.
    """
    try:
        lines = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    with lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield from_json(line)
                except TraceFileError as error:
                    raise TraceFileError(f"{path}, line {number}: {error}") from None


class TraceWriter:
    """Appends traces to a JSONL file; not for several threads at once.

    Attributes:
        path: the file, made with its folder if it is not there.
        written: how many traces.
    """

    def __init__(self, path: str | Path) -> None:
        """Open it, and drop what is torn at its end.

        Raises:
            InputError: it cannot be written.
        """
        self.path = Path(path)
        self.written = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            os.ftruncate(self._file, _whole_lines(self._file))
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None

    def write(self, trace: Trace) -> None:
        """Append a trace: all of its line, or nothing.

        Raises:
            OSError: the disk is full, or the file cannot be written any more.
        """
        line = trace.to_json().encode() + b"\n"
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            done = 0
            while done < len(line):
                done += os.write(self._file, line[done:])
        except OSError:
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
            raise
        self.written += 1

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def resume(path: str | Path, **circumstances: Any) -> dict[Key, Trace]:
    """What an earlier run left in a file and need not run again, by `key`; failed and cancelled traces are dropped.

    The file is replaced by what is kept, in one step.

    Args:
        circumstances: what the run that goes on will have, of the fields of `SAME`.

    Raises:
        InputError: a trace was made under other circumstances, naming the first difference.
        TraceFileError: a line other than a torn last one cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return {}
    TraceWriter(path).close()  # drops a torn last line
    kept: dict[Key, Trace] = {}
    for trace in read_traces(path):
        _check_same(path, trace, circumstances)
        if trace.status in ("finished", "length"):
            kept[key(trace)] = trace
    _replace(path, kept.values())
    return kept


def key(trace: Trace) -> Key:
    """What a trace is a sample of, and which one: its task, or its prompt if it has none, and its sample number."""
    return (trace.task if trace.task is not None else trace.prompt, trace.sample)


def _check_same(path: Path, trace: Trace, circumstances: dict[str, Any]) -> None:
    for name in SAME:
        if name in circumstances and getattr(trace, name) != circumstances[name]:
            was, other = _differing(getattr(trace, name), circumstances[name])
            raise InputError(
                f"{path} was made with {name}={was}, not {other}: give the settings of that run, or another file"
            )


def _differing(one: Any, other: Any) -> tuple[str, str]:
    """Two values for people; of two records, the fields in which they differ."""
    if isinstance(one, Record) and isinstance(other, Record):
        names = [name for name, value in one if value != getattr(other, name, None)]
        one, other = ({name: getattr(record, name, None) for name in names} for record in (one, other))
    return f"{one!s:.200}", f"{other!s:.200}"


def _whole_lines(file: int) -> int:
    """How many bytes of a file are whole lines."""
    end = os.lseek(file, 0, os.SEEK_END)
    while end:
        start = max(0, end - (1 << 16))
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _replace(path: Path, traces: Iterable[Trace]) -> None:
    """Write a file anew; until that is done the old one stays."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with TraceWriter(beside) as writer:
        for trace in traces:
            writer.write(trace)
    os.replace(beside, path)
