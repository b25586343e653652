"""When each thread of a trace was queued, decoding, and waiting for its children; in seconds, as recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from parallel_reason.trace.thread import Fork, Thread

PhaseKind = Literal["queued", "decoding", "waiting"]


@dataclass(frozen=True)
class Phase:
    """One thing that a thread did without a break.

    Attributes:
        span: which span of the thread was decoded; None if it was not decoding.
    """

    kind: PhaseKind
    started_s: float
    ended_s: float
    span: int | None = None


@dataclass(frozen=True)
class Lane:
    """One thread on the clock of its trace.

    Attributes:
        started_s, ended_s: from its fork until its last sampled token, its last fork, or the end of its last wait.
        phases: in order; they do not overlap.
    """

    started_s: float
    ended_s: float
    phases: tuple[Phase, ...]


def lanes(threads: Sequence[Thread]) -> list[Lane]:
    """The lane of every thread, [threads].

    A span knows when its request started and ended. What lies between is waiting, from a fork until its results are
    written or its last child has ended, and else queueing, if the thread sampled again. What a join writes at the end
    of a child, such as a closing tag, does not make its lane longer.
    """
    born = [0.0] * len(threads)
    for number, thread in enumerate(threads):
        if thread.spans:
            born[number] = max(born[number], thread.spans[0].started_s)
        for fork in thread.forks:
            at = max([born[number], *(span.ended_s for span in thread.spans[: fork.at])])
            for child in fork.children:
                born[child] = at
    found: list[Lane | None] = [None] * len(threads)
    ends = [0.0] * len(threads)
    for number in range(len(threads) - 1, -1, -1):  # children stand after their parents
        lane = _lane(threads[number], born[number], ends)
        found[number], ends[number] = lane, lane.ended_s
    return [lane for lane in found if lane is not None]


def _lane(thread: Thread, born: float, ends: Sequence[float]) -> Lane:
    """One thread's lane, from when it was born and when all threads below it ended."""
    phases: list[Phase] = []
    clock = born
    last = max([place for place, span in enumerate(thread.spans) if span.origin == "sampled"], default=-1)
    for place in range(len(thread.spans) + 1):
        span = thread.spans[place] if place < len(thread.spans) else None
        children = [child for fork in _joined_at(thread, place) for child in fork.children]
        if children:
            until = max(ends[child] for child in children)
            if span is not None:  # results are written when the last child that was waited for has ended
                until = span.started_s if span.origin != "sampled" else min(until, span.started_s)
            if until > clock:
                phases.append(Phase("waiting", clock, until))
                clock = until
        if span is None:
            break
        if span.started_s > clock and place <= last:
            phases.append(Phase("queued", clock, span.started_s))
        if span.origin == "sampled" and span.ended_s > max(clock, span.started_s):
            phases.append(Phase("decoding", max(clock, span.started_s), span.ended_s, place))
        clock = max(clock, span.ended_s)
    forked = [span.ended_s for fork in thread.forks for span in thread.spans[: fork.at]]
    return Lane(born, max([born, *forked, *(phase.ended_s for phase in phases)]), tuple(phases))


def _joined_at(thread: Thread, place: int) -> list[Fork]:
    """The forks for whose children a thread waited before its span of that place."""
    return [
        fork
        for fork in thread.forks
        if fork.waited and (fork.at if fork.joined_at is None else fork.joined_at) == place
    ]
