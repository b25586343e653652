"""Trace to tokens, positions and visibility: the only place where these rules are written down.

Engines, trainers and tests all take them from here. The tokens of a trace are laid out depth first: a thread's spans up
to a fork, then each child with all below it, then the thread's next spans. For the ``message`` rule (APR):

- a child sees its parent's tokens up to the fork, if the fork shares its prefix, and its own;
- a thread that goes on after a fork sees its own tokens, never its children's: what they returned is in the join text;
- positions count the tokens that a thread sees, so every thread is plain causal text of its own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parallel_reason.trace import Span, Thread, Trace

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Segment:
    """A run of tokens that see the same earlier tokens, and each other causally.

    Attributes:
        start, stop: where it lies in the layout.
        visible: intervals ``(start, stop)`` of earlier tokens that all of it sees, in order of position.
        thread: index of its thread in ``trace.threads``.
    """

    start: int
    stop: int
    visible: tuple[tuple[int, int], ...]
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
        """Dense visibility, [tokens, tokens]: row i is what token i sees. Memory is quadratic; for short rows."""
        seen = np.zeros((len(self.ids), len(self.ids)), dtype=bool)
        for segment in self.segments:
            rows = slice(segment.start, segment.stop)
            for start, stop in segment.visible:
                seen[rows, start:stop] = True
            seen[rows, rows] = np.tri(segment.stop - segment.start, dtype=bool)
        return seen


def layout(trace: Trace) -> Layout:
    """Lay out a trace."""
    walk = _Walk()
    walk.thread(trace.root, ())
    length = len(walk.ids)
    return Layout(
        ids=np.array(walk.ids, dtype=np.int64),
        positions=np.array(walk.positions, dtype=np.int64),
        sampled=np.array(walk.sampled, dtype=bool),
        logprobs=np.array(walk.logprobs, dtype=np.float64).reshape(length),
        previous=np.array(walk.previous, dtype=np.int64),
        segments=tuple(walk.segments),
    )


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

    def thread(self, thread: Thread, seen: tuple[tuple[int, int], ...]) -> None:
        """Add a thread that sees the intervals ``seen``, and all below it."""
        number, self.threads = self.threads, self.threads + 1
        forks = list(thread.forks)
        for place in range(len(thread.spans) + 1):
            while forks and forks[0].at == place:
                fork = forks.pop(0)
                for child in fork.children:
                    self.thread(child, seen if fork.shares_prefix else ())
            if place < len(thread.spans):
                seen = self.span(thread.spans[place], seen, number)

    def span(self, span: Span, seen: tuple[tuple[int, int], ...], thread: int) -> tuple[tuple[int, int], ...]:
        """Add a span; returns what the next token of its thread sees."""
        if not span.ids:
            return seen
        start, stop = len(self.ids), len(self.ids) + len(span.ids)
        position = sum(b - a for a, b in seen)
        before = seen[-1][1] - 1 if seen else -1
        self.ids += span.ids
        self.positions += range(position, position + len(span.ids))
        self.sampled += [span.origin == "sampled"] * len(span.ids)
        self.logprobs += span.logprobs or [float("nan")] * len(span.ids)
        self.previous += [before, *range(start, stop - 1)]
        self.segments.append(Segment(start, stop, seen, thread))
        if seen and seen[-1][1] == start:
            return (*seen[:-1], (seen[-1][0], stop))
        return (*seen, (start, stop))
