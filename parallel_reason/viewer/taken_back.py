"""Which tokens of a trace were taken back: they stay in the trace, and no later token of their thread sees them."""

from parallel_reason.trace.trace import Trace
from parallel_reason.trace.view import TokenTable, View, add, fork, join, take_back
from parallel_reason.trace.walk import ChildStep, SpanStep, walk

Place = tuple[int, int]  # a thread, and one of its spans


def taken_back(trace: Trace) -> dict[Place, list[tuple[int, int]]]:
    """Half-open intervals of tokens in the spans that hold them; of most traces, none."""
    if not any(span.taken_back for thread in trace.threads for span in thread.spans):
        return {}
    table, views = TokenTable(), [View()] * len(trace.threads)
    owners: list[tuple[int, int, int]] = []  # of each span in the table: its first token, its thread, its place
    counts = [0] * len(trace.threads)
    found: dict[Place, list[tuple[int, int]]] = {}
    for step in walk(trace.threads):
        number = step.thread
        if isinstance(step, SpanStep):
            before = take_back(table, views[number], step.span.taken_back)
            for start, stop in views[number].beyond(before):
                _note(found, owners, start, stop)
            owners.append((len(table.ids), number, counts[number]))
            counts[number] += 1
            views[number] = add(table, before, step.span.ids, shift=step.span.shift)
        elif isinstance(step, ChildStep):
            views[number] = fork(views[trace.threads[number].parent or 0], step.fork.shares_prefix)
        else:
            ends = [(views[child], trace.threads[child].ran) for child in step.fork.children]
            views[number] = join(views[number], step.fork.join_rule, ends)
    return found


def _note(found: dict[Place, list[tuple[int, int]]], owners: list[tuple[int, int, int]], start: int, stop: int) -> None:
    """Record tokens ``start`` to ``stop`` of the table in the spans that they belong to."""
    for first, thread, span in reversed(owners):
        if first < stop:
            found.setdefault((thread, span), []).append((max(start, first) - first, stop - first))
            stop = first
        if first <= start:
            return
