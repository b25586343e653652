"""A trace as one row: token ids, positions, visibility and loss mask.

Engines, trainers and tests all take them from here. The tokens of a trace are laid out depth first: a thread's spans up
to a fork, then each child with all below it, then the thread's next spans. Who sees what, and at which positions, is
defined in `view`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parallel_reason.trace.trace import Trace
from parallel_reason.trace.view import Intervals, TokenTable, View, add, fork, join, take_back
from parallel_reason.trace.walk import ChildStep, SpanStep, walk

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Segment:
    """A run of tokens that see the same earlier tokens, and each other causally.

    Attributes:
        start, stop: where it lies in the layout.
        visible: intervals ``(start, stop)`` of earlier tokens that all of it sees, ascending.
        thread: index of its thread in ``trace.threads``.
    """

    start: int
    stop: int
    visible: Intervals
    thread: int


@dataclass(frozen=True)
class Layout:
    """One trace as one row.

    Attributes:
        ids, positions: [tokens].
        sampled: whether the model wrote the token: the loss mask, [tokens].
        logprobs: the engine's log-prob of each sampled token, NaN elsewhere and where unknown, [tokens].
        policy_versions: which weights sampled it, see `Span`; -1 elsewhere and where unknown, [tokens].
        previous: index of the token whose logits predict this one, -1 for the first of a thread that sees nothing.
        segments: who sees what.
    """

    ids: Ints
    positions: Ints
    sampled: Bools
    logprobs: NDArray[np.float64]
    policy_versions: Ints
    previous: Ints
    segments: tuple[Segment, ...]

    @property
    def longest_context(self) -> int:
        """The most tokens that one token sees, itself among them."""
        sizes = (s.stop - s.start + sum(stop - start for start, stop in s.visible) for s in self.segments)
        return max(sizes, default=0)

    def mask(self) -> Bools:
        """Dense visibility; see `visibility`."""
        return visibility(((segment.start, segment.stop, segment.visible) for segment in self.segments), len(self.ids))

    def intervals(self) -> tuple[Ints, Ints]:
        """Visibility in linear memory.

        Returns:
            The segment of every token, [tokens]; and the visible intervals of every segment, the last of them the
            segment itself, padded with empty ones, [segments, most intervals, 2]. Token i sees token j if j <= i and j
            lies in an interval of i's segment.
        """
        owner = np.zeros(len(self.ids), dtype=np.int64)
        widest = max((len(segment.visible) for segment in self.segments), default=0)
        table = np.zeros((len(self.segments), widest + 1, 2), dtype=np.int64)
        for number, segment in enumerate(self.segments):
            owner[segment.start : segment.stop] = number
            rows = [*segment.visible, (segment.start, segment.stop)]
            table[number, : len(rows)] = rows
        return owner, table


def visibility(segments: Iterable[tuple[int, int, Iterable[Sequence[int]]]], tokens: int) -> Bools:
    """Dense visibility, [tokens, tokens]: row i is what token i sees. Memory is quadratic; for short rows.

    Args:
        segments: ``start``, ``stop`` and ``visible`` of each `Segment`; a token in none of them sees nothing.
    """
    seen = np.zeros((tokens, tokens), dtype=bool)
    for start, stop, visible in segments:
        for first, last in visible:
            seen[start:stop, first:last] = True
        seen[start:stop, start:stop] = np.tri(stop - start, dtype=bool)
    return seen


def layout(trace: Trace) -> Layout:
    """Lay out a trace."""
    table, views = TokenTable(), [View()] * len(trace.threads)
    segments: list[Segment] = []
    logprobs: list[float] = []
    versions: list[int] = []
    previous: list[int] = []

    for step in walk(trace.threads):
        number = step.thread
        if isinstance(step, SpanStep):
            span = step.span
            before = take_back(table, views[number], span.taken_back)
            views[number] = add(table, before, span.ids, shift=span.shift, sampled=span.origin == "sampled")
            if span.ids:
                start, stop = len(previous), len(table.ids)
                segments.append(Segment(start, stop, before.seen, number))
                previous += [before.newest, *range(start, stop - 1)]
                logprobs += span.logprobs or [float("nan")] * len(span.ids)
                versions += [-1 if span.policy_version is None else span.policy_version] * len(span.ids)
        elif isinstance(step, ChildStep):
            views[number] = fork(views[trace.threads[number].parent or 0], step.fork.shares_prefix)
        else:
            ends = [(views[child], trace.threads[child].ran) for child in step.fork.children]
            views[number] = join(views[number], step.fork.join_rule, ends)
    return Layout(
        ids=np.array(table.ids, dtype=np.int64),
        positions=np.array(table.positions, dtype=np.int64),
        sampled=np.array(table.sampled, dtype=bool),
        logprobs=np.array(logprobs, dtype=np.float64),
        policy_versions=np.array(versions, dtype=np.int64),
        previous=np.array(previous, dtype=np.int64),
        segments=tuple(segments),
    )
