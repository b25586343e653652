"""Which spans lie on the critical path of a trace: the chain that `Ledger.critical_path_tokens` counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from parallel_reason.trace.ledger import critical_paths
from parallel_reason.trace.thread import Fork, Thread

Place = tuple[int, int]  # a thread, and one of its spans


@dataclass
class _Step:
    """A fork that is waited for, or a join of one beside which its thread sampled on.

    Attributes:
        place: how many spans of the thread came before.
        clock: tokens on the path before it, from the start of its thread.
        by_child: whether the path goes through a child.
    """

    place: int
    fork: Fork
    joins: bool
    clock: int = 0
    by_child: bool = False


def critical_spans(threads: Sequence[Thread]) -> set[Place]:
    """The spans of the longest chain of sampled tokens in which each waited for the one before.

    Of children that are equally long it is the first. The sampled tokens of these spans are C(root) of `Ledger`.
    """
    paths = critical_paths(threads)
    marked: set[Place] = set()
    below = [0]
    while below:
        number = below.pop()
        steps = _steps(threads[number], paths)
        place = len(threads[number].spans)
        while steps:
            step = steps.pop()
            marked |= {(number, span) for span in range(step.place, place)}
            place = step.place
            if step.by_child:
                below.append(max(step.fork.children, key=lambda child: (paths[child], -child)))
                if step.joins:  # the thread's own tokens since the fork were not waited for
                    place = step.fork.at
                    while steps and steps[-1].fork is not step.fork:
                        steps.pop()
                    steps.pop()
        marked |= {(number, span) for span in range(place)}
    return marked


def clocks(threads: Sequence[Thread]) -> tuple[list[int], list[list[int]]]:
    """When things happen if every token takes one step and no thread waits for room.

    Returns:
        The step at which each thread starts, [threads]; and at which each span of it starts, and after these at which
        it ends, [threads, spans + 1].
    """
    paths = critical_paths(threads)
    starts, spans = [0] * len(threads), [[0]] * len(threads)
    for number, thread in enumerate(threads):
        own = _own(thread)
        steps = {(id(step.fork), step.joins): step for step in _steps(thread, paths)}
        waited, times = 0, []
        for place in range(len(thread.spans) + 1):
            clock = starts[number] + own[place] + waited
            for fork in (fork for fork in thread.forks if fork.at == place):
                for child in fork.children:
                    starts[child] = clock
                step = steps.get((id(fork), False))
                if step is not None and fork.joined_at is None:
                    clock += _longest(fork, paths)
            for fork in (fork for fork in thread.forks if fork.joined_at == place and fork.waited):
                clock = max(clock, starts[fork.children[0]] + _longest(fork, paths)) if fork.children else clock
            waited = clock - starts[number] - own[place]
            times.append(clock)
        spans[number] = times
    return starts, spans


def _steps(thread: Thread, paths: Sequence[int]) -> list[_Step]:
    """What moves the clock of a thread besides its own tokens, in order."""
    own = _own(thread)
    forks = [_Step(fork.at, fork, joins=False) for fork in thread.forks if fork.waited]
    joins = [
        _Step(fork.joined_at, fork, joins=True) for fork in thread.forks if fork.waited and fork.joined_at is not None
    ]
    steps = sorted([*forks, *joins], key=lambda step: step.place)
    waited, started = 0, {}
    for step in steps:
        step.clock = own[step.place] + waited
        longest = _longest(step.fork, paths)
        if step.fork.joined_at is None:
            step.by_child = longest > 0
            waited += longest
        elif not step.joins:
            started[id(step.fork)] = step.clock
        else:
            late = started[id(step.fork)] + longest - step.clock
            step.by_child = late > 0
            waited += max(0, late)
    return steps


def _own(thread: Thread) -> list[int]:
    """The sampled tokens of a thread before each of its spans, and all of them, [spans + 1]."""
    return [0, *accumulate(len(span.ids) if span.origin == "sampled" else 0 for span in thread.spans)]


def _longest(fork: Fork, paths: Sequence[int]) -> int:
    return max((paths[child] for child in fork.children), default=0)
