"""Traces in the formats of other tools; one file a format, each a pure function from samples to text."""

from collections.abc import Callable, Iterable
from pathlib import Path

from parallel_reason.viewer.exports import atif, inspect_log, otel, perfetto, table
from parallel_reason.viewer.files import write_whole
from parallel_reason.viewer.page import TextsOf
from parallel_reason.viewer.runs import Run

FORMATS: dict[str, Callable[[Run, TextsOf], Iterable[str]]] = {
    "perfetto": perfetto.parts,
    "atif": atif.parts,
    "otel": otel.parts,
    "inspect": inspect_log.parts,
}
TABLE = "table"


def export(run: Run, name: str, path: Path, texts_of: TextsOf) -> list[Path]:
    """Write a run in one of the `FORMATS`, or as a `TABLE`; the files that were written.

    Raises:
        InputError: the run cannot be read, or the place cannot be written.
    """
    if name == TABLE:
        return table.write(run, path)
    write_whole(path, FORMATS[name](run, texts_of))
    return [path]
