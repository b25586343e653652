"""Tables for pandas: one row a trace, and in a second file one row a thread; CSV, or Parquet by the file's name."""

import csv
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from parallel_reason.errors import InputError
from parallel_reason.trace import Thread
from parallel_reason.viewer.critical import critical_spans
from parallel_reason.viewer.files import write_whole
from parallel_reason.viewer.lanes import lanes
from parallel_reason.viewer.record import clip, problem_key
from parallel_reason.viewer.runs import Run, Sample

Row = dict[str, Any]


def write(run: Run, path: Path) -> list[Path]:
    """Write both tables: ``NAME.csv`` and ``NAME.threads.csv``, or the same with ``.parquet``.

    Raises:
        InputError: another kind of file, one that cannot be written, or pyarrow is missing for Parquet.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise InputError(f"a table is a .csv or a .parquet file, not {path.name!r}")
    below = path.with_suffix(f".threads{path.suffix}")
    traces: list[Row] = []
    threads: list[Row] = []
    for sample in run.samples():
        traces.append(trace_row(sample))
        threads += thread_rows(sample)
    for place, rows in ((path, traces), (below, threads)):
        if kind == ".csv":
            write_whole(place, _csv(rows))
        else:
            _parquet(place, rows)
    return [path, below]


def trace_row(sample: Sample) -> Row:
    """One trace: what it is, and its whole ledger."""
    trace = sample.trace
    return {
        "trace": trace.id, "problem": clip(problem_key(trace)).text, "sample": trace.sample, "group": trace.group,
        "model": trace.model, "dialect": trace.dialect, "engine": trace.engine, "status": trace.status,
        "stop_reason": trace.stop_reason, "answer": None if trace.answer is None else clip(trace.answer).text,
        "correct": sample.correct, "started_at": trace.started_at, "errors": len(trace.errors),
        **trace.ledger.model_dump(),
    }  # fmt: skip


def thread_rows(sample: Sample) -> Iterator[Row]:
    """The threads of a trace, parents before children."""
    trace = sample.trace
    marked = {thread for thread, _ in critical_spans(trace.threads)}
    for number, (thread, lane) in enumerate(zip(trace.threads, lanes(trace.threads), strict=True)):
        yield {
            "trace": trace.id, "thread": thread.label, "depth": thread.depth,
            "parent": None if thread.parent is None else trace.threads[thread.parent].label,
            "status": thread.status, "stop_reason": thread.stop_reason, "on_critical_path": number in marked,
            "sampled_tokens": thread.tokens("sampled"), "injected_tokens": thread.tokens("injected"),
            "copied_tokens": thread.tokens("copied"), "prompt_tokens": thread.tokens("prompt"),
            "forks": len(thread.forks), "malformed_forks": len(thread.malformed), "children": _children(thread),
            "mean_logprob": _mean_logprob(thread), "prefilled_tokens": thread.prefilled_tokens,
            "cached_tokens": thread.cached_tokens, "recomputed_tokens": thread.recomputed_tokens,
            "started_s": lane.started_s, "ended_s": lane.ended_s, "queued_s": thread.queued_s,
            "running_s": thread.running_s, "waiting_s": thread.waiting_s, "text": clip(thread.text).text,
        }  # fmt: skip


def _children(thread: Thread) -> int:
    return sum(len(fork.children) for fork in thread.forks)


def _mean_logprob(thread: Thread) -> float | None:
    values = [value for span in thread.spans for value in span.logprobs]
    return sum(values) / len(values) if values else None


def _csv(rows: list[Row]) -> Iterator[str]:
    """Lines; what is not known is empty."""
    line = io.StringIO()
    writer = csv.DictWriter(line, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        yield line.getvalue().encode("utf-8", "backslashreplace").decode()
        line.seek(0)
        line.truncate()


def _parquet(path: Path, rows: list[Row]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'parallel-reason[report]', or write a .csv") from None
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), beside)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # it is in its place, or could not be made
            beside.unlink()
