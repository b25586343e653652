"""The threads of a trace as text for people: what each saw itself write, children below the place where they forked."""

from collections.abc import Sequence
from typing import Any

from parallel_reason.text import decode
from parallel_reason.trace.thread import Thread
from parallel_reason.trace.walk import SpanStep, walk

INDENT = "  "


def transcript(threads: Sequence[Thread], tokenizer: Any) -> str:
    """The text of all threads; see `Trace.transcript`."""
    blocks: list[tuple[int, list[int]]] = []  # a thread, and its tokens up to where another one's begin
    for step in walk(threads):
        if not isinstance(step, SpanStep):
            blocks.append((step.thread, []))
            continue
        if not blocks or blocks[-1][0] != step.thread:
            blocks.append((step.thread, []))
        ids = blocks[-1][1]
        del ids[max(0, len(ids) - step.span.taken_back) :]
        if step.span.origin != "copied":
            ids += step.span.ids
    last = {thread: place for place, (thread, _) in enumerate(blocks)}
    lines: list[str] = []
    for place, (number, ids) in enumerate(blocks):
        thread = threads[number]
        text = decode(tokenizer, ids).strip()
        if place == last[number] and thread.status != "finished":
            text += f" ({thread.status}: {thread.stop_reason})"
        if text:
            lines += [INDENT * thread.depth + line for line in f"[{thread.label}] {text.lstrip()}".splitlines()]
    return "\n".join(lines)
