"""A run to look at: traces from a JSONL file or a folder, each with its verdict, and what was left out."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from parallel_reason.errors import InputError, TraceFileError
from parallel_reason.trace import Trace, from_json

TRACES, SAMPLES = "traces.jsonl", "samples.jsonl"
NOTES = 5  # lines that are named; the others are counted


@dataclass(frozen=True)
class Sample:
    """A trace, and whether its answer is right; None if nobody has said so."""

    trace: Trace
    correct: bool | None = None


@dataclass
class Run:
    """Where traces are.

    Attributes:
        name: for people.
        file: the JSONL file of the traces.
        verdicts: whether an answer is right, by the id of its trace; ``judge`` says it of the traces without one.
        notes: what was left out, and why; complete when `samples` is exhausted.
    """

    name: str
    file: Path
    verdicts: dict[str, bool] = field(default_factory=dict)
    judge: Callable[[Trace], bool | None] = lambda trace: None
    notes: list[str] = field(default_factory=list)

    def samples(self) -> Iterator[Sample]:
        """Its traces in the order of the file; lines that cannot be read, and traces that came before, are noted.

        Raises:
            InputError: the file cannot be opened, or none of its lines is a trace.
        """
        wrong: list[str] = []
        ids: set[str] = set()
        twice = 0
        for number, line in _lines(self.file):
            try:
                trace = from_json(line)
            except TraceFileError as error:
                wrong.append(f"line {number}: {error}")
                continue
            if trace.id in ids:
                twice += 1
                continue
            ids.add(trace.id)
            yield Sample(trace, self.verdicts[trace.id] if trace.id in self.verdicts else self.judge(trace))
        if not ids:
            raise InputError(f"no trace in {self.file}" + (f": {wrong[0]}" if wrong else ": it is empty"))
        self._note(wrong, twice, len(self.verdicts.keys() - ids))

    def _note(self, wrong: list[str], twice: int, missing: int) -> None:
        if wrong:
            more = f", and {len(wrong) - NOTES} more" if len(wrong) > NOTES else ""
            lines = "1 line" if len(wrong) == 1 else f"{len(wrong)} lines"
            self.notes.append(f"{self.file}: {lines} left out: {'; '.join(wrong[:NOTES])}{more}")
        if twice:
            self.notes.append(f"{self.file}: {_traces(twice)} left out: the id was there before")
        if missing:
            self.notes.append(f"{self.file}: {_traces(missing)} missing that {SAMPLES} has a verdict of")


def find_run(path: Path) -> Run:
    """The run in a folder that an evaluation wrote, or in a JSONL file of traces.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"no run {str(path)!r}: give a folder of an evaluation, or a JSONL file of traces")
        return Run(path.stem if path.stem != "traces" else path.resolve().parent.name, path)
    file = path / TRACES
    if not file.is_file():
        raise InputError(f"no {TRACES} in {str(path)!r}: give a folder of an evaluation, or a JSONL file of traces")
    samples = path / SAMPLES
    run = Run(path.resolve().name, file)
    if samples.is_file():
        run.verdicts = _verdicts(samples, run.notes)
    return run


def _verdicts(file: Path, notes: list[str]) -> dict[str, bool]:
    """What `SAMPLES` says of each trace, by its id; a later line replaces an earlier one."""
    found: dict[str, bool] = {}
    unread = 0
    for _, line in _lines(file):
        try:
            row = json.loads(line)
        except ValueError:  # torn by a killed process
            row = None
        if isinstance(row, dict) and isinstance(row.get("trace"), str) and isinstance(row.get("correct"), bool):
            found[row["trace"]] = row["correct"]
        else:
            unread += 1
    if unread:
        notes.append(f"{file}: {unread} of its lines are no verdict")
    return found


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, numbered from 1."""
    try:
        lines = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    with lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, line


def _traces(count: int) -> str:
    return "1 trace" if count == 1 else f"{count} traces"
