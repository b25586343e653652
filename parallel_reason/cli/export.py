"""``parallel-reason export``: a run in the format of another tool."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from parallel_reason.cli.console import PlainConsole, print_note, status
from parallel_reason.cli.traces import TaskOption, TokenizerOption, Tokenizers, judge_by
from parallel_reason.viewer import find_run
from parallel_reason.viewer.exports import export as write


class Format(StrEnum):
    """Of another tool."""

    PERFETTO = "perfetto"
    ATIF = "atif"
    OTEL = "otel"
    INSPECT = "inspect"
    TABLE = "table"


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that eval wrote, or a JSONL file of traces.")],
    to: Annotated[Format, typer.Option(help="The format.")],
    out: Annotated[Path, typer.Option(help="The file; it is replaced.")],
    task: TaskOption = None,
    tokenizer: TokenizerOption = None,
) -> None:
    """Write the traces of a run for another tool.

    perfetto: Chrome trace JSON for ui.perfetto.dev, a track a thread, arrows for forks and joins.
    atif: ATIF v1.7, a trajectory a line. otel: OTLP JSON with GenAI spans, a trace a line.
    inspect: an eval log for inspect view. table: FILE.csv or FILE.parquet, a row a trace, and FILE.threads.csv.

    For example: parallel-reason export runs/parallel --to perfetto --out parallel.json
    """
    found = find_run(run)
    judge_by([found], task)
    with status(f"writing {out}"):
        files = write(found, str(to), out, Tokenizers(tokenizer))
    for note in found.notes:
        print_note(note)
    PlainConsole(soft_wrap=True).print(" ".join(map(str, files)))
