"""The folder of a run: ``settings.json``, ``traces.jsonl``, ``samples.jsonl`` and ``summary.json``.

A sample counts once its trace is in ``traces.jsonl``, a line that is there whole or not at all. ``samples.jsonl`` and
``summary.json`` follow from the traces: what a kill left out of them is made again.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, TypeVar

from pydantic import ValidationError

from parallel_reason.errors import InputError, TraceFileError, first_line
from parallel_reason.evaluation.sample import Sample, failed
from parallel_reason.evaluation.settings import RunSettings, first_difference
from parallel_reason.record import FrozenRecord, Record
from parallel_reason.trace import Trace, TraceWriter
from parallel_reason.trace.jsonl import from_json

SETTINGS, TRACES, SAMPLES, SUMMARY = "settings.json", "traces.jsonl", "samples.jsonl", "summary.json"
BROKEN = "traces.broken.jsonl"  # lines of traces.jsonl that could not be read
Grade = Callable[[Trace], Sample | None]
R = TypeVar("R", bound=Record)


class RunFolder:
    """A run that is written; one process at a time.

    Attributes:
        path: of the folder.
        samples: what is finished, by problem and sample number.
        notes: what was found wrong with an earlier attempt's files and is run again, a line each.
    """

    def __init__(self, path: Path, settings: RunSettings, grade: Grade) -> None:
        """Make a folder, or go on in it.

        Args:
            grade: the sample of a trace that an earlier attempt did not grade; None if it is not of this run.

        Raises:
            InputError: it cannot be written, another process writes it, or it has a run of other settings.
        """
        self.path = path
        self.samples: dict[tuple[str, int], Sample] = {}
        self.notes: list[str] = []
        self._one_at_a_time = Lock()
        with ExitStack() as opened:
            try:
                path.mkdir(parents=True, exist_ok=True)
                _take_lock(opened.enter_context((path / ".lock").open("w")), path)
                self._check_same(settings)
                self._keep(grade)
                self._samples_file = opened.enter_context((path / SAMPLES).open("a", encoding="utf-8"))
            except OSError as error:
                raise InputError(f"cannot write {error.filename or path}: {error.strerror}") from None
            self._traces = opened.enter_context(TraceWriter(path / TRACES))
            self._opened = opened.pop_all()

    def add_trace(self, trace: Trace) -> None:
        """Write a trace; OSError if that cannot be done."""
        self._traces.write(trace)

    def add_sample(self, sample: Sample) -> None:
        """Write the sample of a trace that was written; may be called from several threads."""
        with self._one_at_a_time:
            self.samples[sample.key] = sample
            self._samples_file.write(sample.model_dump_json() + "\n")
            self._samples_file.flush()

    def write_summary(self, summary: FrozenRecord) -> None:
        """Write ``summary.json``."""
        write_whole(self.path / SUMMARY, summary.model_dump_json(indent=2))

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def _check_same(self, settings: RunSettings) -> None:
        """Refuse another run's folder; write the settings of a new one."""
        if not (self.path / SETTINGS).exists():
            if (self.path / TRACES).exists():
                raise InputError(f"{self.path} has traces and no {SETTINGS}: give another folder")
            write_whole(self.path / SETTINGS, settings.model_dump_json(indent=2))
            return
        kept = read_settings(self.path)
        other = first_difference(kept.model_dump(mode="json"), settings.model_dump(mode="json"))
        if other:
            raise InputError(f"{self.path} has a run of other settings: {other}; give those, or another folder")

    def _keep(self, grade: Grade) -> None:
        """Read what is finished, and rewrite the files without what is torn, broken, failed or there twice."""
        graded = {sample.trace: sample for sample in read_lines(self.path / SAMPLES, Sample)[0]}
        traces, beside = self.path / TRACES, self.path / f"{TRACES}.new"
        if not traces.exists():
            return
        TraceWriter(traces).close()  # drops a torn last line
        broken, dropped = [], 0
        with traces.open("rb") as lines, beside.open("wb") as kept:
            for number, line in enumerate(lines, start=1):
                try:
                    trace = from_json(line)
                except TraceFileError as error:
                    broken.append(line)
                    self.notes.append(f"{traces}, line {number}: {error}; it is moved to {BROKEN} and run again")
                    continue
                sample = None if failed(trace) else graded.get(trace.id) or grade(trace)
                if sample is None or sample.key in self.samples:
                    dropped += 1
                    continue
                self.samples[sample.key] = sample
                kept.write(line)
        if dropped:
            self.notes.append(f"{dropped} traces of {traces} had failed, or were there twice, and are left out")
        if broken:
            with (self.path / BROKEN).open("ab") as file:
                file.writelines(broken)
        beside.replace(traces)
        rows = "".join(sample.model_dump_json() + "\n" for sample in self.samples.values())
        write_whole(self.path / SAMPLES, rows)


def _take_lock(file: IO[str], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another process writes {path}: wait for it, or give another folder") from None


def read_settings(path: Path) -> RunSettings:
    """The settings of a run's folder.

    Raises:
        InputError: they cannot be read, or are of another version.
    """
    file = path / SETTINGS
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "no such folder of a run" if isinstance(error, FileNotFoundError) else first_line(error)
        raise InputError(f"cannot read {file}: {why}") from None
    with suppress(ValueError):
        values = json.loads(text)
        if isinstance(values, dict) and values.get("version", 1) != 1:
            raise InputError(f"{file} is of version {values['version']!r:.20}, and this program reads version 1")
    try:
        return RunSettings.model_validate_json(text)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{file} is damaged: {place + ': ' if place else ''}{first_line(error)}") from None


def read_run(path: str | os.PathLike[str]) -> tuple[RunSettings, list[Sample], list[str]]:
    """A run that is read: its settings, its samples, and a line for each thing wrong with its files.

    Raises:
        InputError: it is no folder of a run, or no sample of it can be read.
    """
    path = Path(path)
    settings = read_settings(path)
    found, notes = read_lines(path / SAMPLES, Sample)
    samples = {sample.key: sample for sample in reversed(found)}
    if len(samples) < len(found):
        notes.append(f"{path / SAMPLES}: {len(found) - len(samples)} samples are there twice; the first of each counts")
    if not samples:
        raise InputError(f"{path / SAMPLES} has no sample that can be read: run the evaluation first")
    if len(samples) < settings.expected:
        notes.append(f"{path}: {settings.expected - len(samples)} of {settings.expected} samples are missing")
    return settings, list(samples.values()), notes


def read_lines(file: Path, kind: type[R]) -> tuple[list[R], list[str]]:
    """The records of a JSONL file that can be read, and a note on each line that cannot; nothing if there is no file.

    Raises:
        InputError: the file is there and cannot be opened.
    """
    records, notes = [], []
    try:
        for number, line in enumerate(_lines(file), start=1):
            try:
                records.append(kind.model_validate_json(line))
            except ValidationError as error:
                notes.append(f"{file}, line {number}: {first_line(error)}; it is left out")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    return records, notes


def _lines(file: Path) -> Iterator[bytes]:
    if file.exists():
        with file.open("rb") as lines:
            yield from (line for line in lines if line.strip())


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
