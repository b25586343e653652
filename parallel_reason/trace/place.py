"""A trace whose tokens stand at given positions, for text that its source counts otherwise than a run."""

from collections.abc import Sequence
from itertools import pairwise

from parallel_reason.trace.trace import Trace
from parallel_reason.trace.view import TokenTable, View, add, fork, join, take_back
from parallel_reason.trace.walk import ChildStep, SpanStep, walk


def placed(trace: Trace, positions: Sequence[int]) -> Trace:
    """The same trace with every token at its given position: spans are cut where positions jump.

    Args:
        trace: a trace of text, whose spans have no log-probs.
        positions: of each token in the order of `layout`, [tokens].
    """
    table, views = TokenTable(), [View()] * len(trace.threads)
    spans = [thread.spans[:0] for thread in trace.threads]
    starts: list[list[int]] = [[] for _ in trace.threads]  # of each thread, where its spans begin now
    for step in walk(trace.threads):
        number = step.thread
        if isinstance(step, SpanStep):
            starts[number].append(len(spans[number]))
            first = len(table.ids)
            own = positions[first : first + len(step.span.ids)]
            jumps = [place for place, (one, other) in enumerate(pairwise(own), start=1) if other != one + 1]
            views[number] = take_back(table, views[number], step.span.taken_back)
            for start, stop in pairwise([0, *jumps, len(own)]):
                shift = own[start] - views[number].position if own else 0
                part = {"ids": step.span.ids[start:stop], "shift": shift, **({"taken_back": 0} if start else {})}
                spans[number].append(step.span.model_copy(update=part))
                views[number] = add(table, views[number], step.span.ids[start:stop], shift=shift)
        elif isinstance(step, ChildStep):
            views[number] = fork(views[trace.threads[number].parent or 0], step.fork.shares_prefix)
        else:
            ends = [(views[child], trace.threads[child].ran) for child in step.fork.children]
            views[number] = join(views[number], step.fork.join_rule, ends)
    threads = []
    for thread, own_spans, begin in zip(trace.threads, spans, starts, strict=True):
        begins = [*begin, len(own_spans)]
        forks = [one.model_copy(update={"at": begins[one.at]}) for one in thread.forks]
        malformed = [one.model_copy(update={"at": begins[one.at]}) for one in thread.malformed]
        threads.append(thread.model_copy(update={"spans": own_spans, "forks": forks, "malformed": malformed}))
    return trace.model_copy(update={"threads": threads})
