"""``parallel-reason show``: a trace on the terminal, or as a page of its own."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parallel_reason.cli.console import PlainConsole, clipped, in_lines, in_words, one_line, print_note
from parallel_reason.cli.output import summary
from parallel_reason.cli.traces import TokenizerOption, Tokenizers, nth
from parallel_reason.errors import InputError
from parallel_reason.trace import Trace
from parallel_reason.viewer import find_run, write_trace_page
from parallel_reason.viewer.bars import CHARACTERS, Cell, bars

ROWS = 60  # threads that are drawn, unless all are asked for
LISTED = 200  # traces that are listed
STYLES: dict[Cell, str] = {
    "critical": "bold magenta", "decoding": "blue", "queued": "yellow", "waiting": "bright_black",
    "prefix": "bright_black", "": "",
}  # fmt: skip
SIGNS = {
    "finished": ("✓", "green"),
    "length": ("✂", "yellow"),
    "cancelled": ("⊘", "bright_black"),
    "failed": ("✗", "red"),
}


def show(
    file: Annotated[Path, typer.Argument(metavar="TRACES", help="A JSONL file of traces, or a folder of eval.")],
    number: Annotated[
        int | None, typer.Argument(metavar="[N]", min=0, help="Which trace, from 0; without it, they are listed.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of the trace to this file.")] = None,
    text: Annotated[bool, typer.Option(help="Print what every thread wrote, too.")] = False,
    every: Annotated[bool, typer.Option("--all", help=f"Draw all threads, not the first {ROWS} alone.")] = False,
    tokenizer: TokenizerOption = None,
) -> None:
    """Draw a trace: a lane a thread, children below their parent, and what it waited for.

    The lanes are in seconds; the critical path, the longest chain of threads that waited for one another, is marked.

    For example: parallel-reason show traces.jsonl 3 --html trace.html
    """
    console = PlainConsole()
    run = find_run(file)
    total, wanted = 0, None
    rows: list[Trace] = []
    for sample in run.samples():
        if total == number or (number is None and total == 0):
            wanted = sample.trace
        if number is None and total < LISTED:
            rows.append(sample.trace)
        total += 1
    for note in run.notes:
        print_note(note)
    if wanted is None:
        raise nth(number or 0, total, str(file))
    if number is None and total > 1:
        if html or text:
            raise InputError(f"{file} has {total} traces: say which, from 0 to {total - 1}")
        _list(console, rows, total)
        return
    tokenizers = Tokenizers(tokenizer)
    if html:
        write_trace_page(html, wanted, tokenizers(wanted))
        console.print(str(html), soft_wrap=True)
        return
    _draw(console, wanted, None if every else ROWS)
    if text:
        texts = tokenizers(wanted)
        console.print()
        written = wanted.transcript(texts.tokenizer) if texts else "\n".join(_texts(wanted))
        console.print(in_lines(written), soft_wrap=True)


def _list(console: Console, traces: list[Trace], total: int) -> None:
    table = Table(
        "N", "problem", "sample", "answer", "threads", "tokens", "critical", "s", box=SIMPLE_HEAD, show_edge=False
    )
    for number, trace in enumerate(traces):
        counts = trace.ledger
        answer = trace.stop_reason if trace.answer is None else trace.answer
        key = trace.task if trace.task is not None else trace.prompt
        table.add_row(
            str(number), clipped(in_words(key), 30), str(trace.sample), clipped(in_words(answer), 24),
            str(counts.threads), str(counts.sampled_tokens), str(counts.critical_path_tokens), f"{counts.wall_s:.2f}",
        )  # fmt: skip
    console.print(table)
    if total > len(traces):
        console.print(f"and {total - len(traces)} more", soft_wrap=True)


def _draw(console: Console, trace: Trace, most: int | None) -> None:
    """The trace in one line, its lanes, and what their characters mean."""
    console.print(summary(trace, trace.prompt), soft_wrap=True)
    for error in trace.errors:
        print_note(error)
    labels = min(24, max(len(thread.label) + 2 * min(thread.depth, 6) for thread in trace.threads) + 2)
    width = max(10, console.width - labels - 8)
    lanes, what = bars(trace, width)
    for lane in lanes[:most]:
        thread = trace.threads[lane.thread]
        sign, style = SIGNS[thread.status]
        row = Text(no_wrap=True, overflow="ellipsis")
        row.append(f"{sign} ", style=style)
        row.append(clipped("  " * min(thread.depth, 6) + thread.label, labels - 2).ljust(labels - 2), style="bold")
        row.append(f"{thread.tokens('sampled'):>6} ", style="bright_black")
        for kind, characters in lane.runs():
            row.append(characters, style=STYLES[kind])
        console.print(row)
        if thread.status != "finished":
            console.print(Text(f"{' ' * labels}{one_line(thread.stop_reason)}", style=style), soft_wrap=True)
    if most is not None and len(lanes) > most:
        console.print(f"and {len(lanes) - most} more threads: --all draws them", soft_wrap=True)
    legend = Text(f"{' ' * (labels + 7)}0 to {what}   ")
    for kind, name in (
        ("critical", "critical path"), ("decoding", "decoding"), ("queued", "queued"), ("waiting", "waiting"),
        ("prefix", "shared prefix"),
    ):  # fmt: skip
        legend.append(CHARACTERS[kind] * 2, style=STYLES[kind])
        legend.append(f" {name}  ", style="bright_black")
    console.print(legend, soft_wrap=True)


def _texts(trace: Trace) -> list[str]:
    """What each thread sampled, where no tokenizer is at hand."""
    return [f"{'  ' * thread.depth}[{thread.label}] {thread.text}" for thread in trace.threads]
