"""Trace to tokens, positions and visibility: the only place where these rules are written down.

Engines, trainers and tests all take them from here. The tokens of a trace are laid out depth first: a thread's spans up
to a fork, then each child with all below it, then the thread's next spans. A child sees its parent's tokens up to the
fork, if the fork shares its prefix, and its own. Whoever goes on after a fork sees, by the fork's join rule:

- ``message`` (APR): its own tokens, never its children's; what they returned is in the join text.
- ``relinearise`` (ThreadWeaver, Parallel-R1 seen): the tokens of its first child as if it had written them itself, and
  after them the copies of the other children's in the join text: plain causal text of its own.
- ``graft`` (Multiverse, NPR, Parallel-R1 unseen, ParaThinker): its own tokens and those of every child, which did not
  see one another. All children began at one position; the next position is one past the last of the longest child.

A child that sampled nothing left nothing to see. A span that ``drops`` tokens begins as if the thread had not written
them. A position is one more than the last that the thread sees, plus the span's ``shift``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parallel_reason.trace import Fork, Span, Thread, Trace

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Intervals = tuple[tuple[int, int], ...]


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
        previous: index of the token whose logits predict this one, -1 for the first of a thread that sees nothing.
        segments: who sees what.
    """

    ids: Ints
    positions: Ints
    sampled: Bools
    logprobs: NDArray[np.float64]
    previous: Ints
    segments: tuple[Segment, ...]

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
    walk = _Walk()
    walk.thread(trace.root, _View((), 0))
    length = len(walk.ids)
    return Layout(
        ids=np.array(walk.ids, dtype=np.int64),
        positions=np.array(walk.positions, dtype=np.int64),
        sampled=np.array(walk.sampled, dtype=bool),
        logprobs=np.array(walk.logprobs, dtype=np.float64).reshape(length),
        previous=np.array(walk.previous, dtype=np.int64),
        segments=tuple(walk.segments),
    )


@dataclass(frozen=True)
class _View:
    """What the next token of a thread sees, and its position if its span has no shift."""

    seen: Intervals
    position: int


class _Walk:
    """The arrays of a layout while the tree is walked."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.sampled: list[bool] = []
        self.logprobs: list[float] = []
        self.previous: list[int] = []
        self.segments: list[Segment] = []
        self.threads = 0

    def thread(self, thread: Thread, view: _View) -> _View:
        """Add a thread that begins with a view, and all below it; returns its view at its end."""
        number, self.threads = self.threads, self.threads + 1
        forks = list(thread.forks)
        for place in range(len(thread.spans) + 1):
            while forks and forks[0].at == place:
                view = self.fork(forks.pop(0), view)
            if place < len(thread.spans):
                view = self.span(thread.spans[place], view, number)
        return view

    def fork(self, fork: Fork, view: _View) -> _View:
        """Add all children of a fork; returns the view with which the parent goes on."""
        born = view if fork.shares_prefix else _View((), 0)
        ends = [(child, self.thread(child, born)) for child in fork.children]
        ran = [end for child, end in ends if child.ran]
        if fork.join == "relinearise" and ends and ends[0][0].ran:
            return ends[0][1]
        if fork.join == "graft" and ran:
            seen = sorted(interval for end in (view, *ran) for interval in end.seen)
            return _View(tuple(_union(seen)), max(end.position for end in ran))
        return view

    def span(self, span: Span, view: _View, thread: int) -> _View:
        """Add a span; returns what the next token of its thread sees."""
        view = self.drop(view, span.drops)
        if not span.ids:
            return view
        start, stop = len(self.ids), len(self.ids) + len(span.ids)
        position = view.position + span.shift
        before = view.seen[-1][1] - 1 if view.seen else -1
        self.ids += span.ids
        self.positions += range(position, position + len(span.ids))
        self.sampled += [span.origin == "sampled"] * len(span.ids)
        self.logprobs += span.logprobs or [float("nan")] * len(span.ids)
        self.previous += [before, *range(start, stop - 1)]
        self.segments.append(Segment(start, stop, view.seen, thread))
        return _View(tuple(_union([*view.seen, (start, stop)])), position + len(span.ids))

    def drop(self, view: _View, count: int) -> _View:
        """A view without its newest tokens."""
        seen, position = list(view.seen), view.position
        while count and seen:
            start, stop = seen.pop()
            here = min(count, stop - start)
            position = self.positions[stop - here]
            count -= here
            if stop - here > start:
                seen.append((start, stop - here))
        return _View(tuple(seen), position)


def _union(intervals: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The union of intervals that are sorted by their starts."""
    if not intervals:
        return
    first, last = intervals[0]
    for start, stop in intervals[1:]:
        if start > last:
            yield first, last
            first, last = start, stop
        last = max(last, stop)
    yield first, last
