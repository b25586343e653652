"""Traces: the record of a run, its counts, its layout as one row, and its files."""

from parallel_reason.trace.flat import flatten
from parallel_reason.trace.jsonl import TraceWriter, from_json, read_traces, resume
from parallel_reason.trace.layout import Layout, layout
from parallel_reason.trace.ledger import Aggregate, Ledger, aggregate, tally
from parallel_reason.trace.thread import Fork, JoinRule, MalformedFork, Origin, Span, Status, Thread
from parallel_reason.trace.trace import Message, Trace

__all__ = [
    "Aggregate", "Fork", "JoinRule", "Layout", "Ledger", "MalformedFork", "Message", "Origin", "Span", "Status",
    "Thread", "Trace", "TraceWriter", "aggregate", "flatten", "from_json", "layout", "read_traces", "resume", "tally",
]  # fmt: skip
