"""A trace, step by step, depth first: the order of `layout` and of the flat text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parallel_reason.trace.thread import Fork, Span, Thread


@dataclass(frozen=True, slots=True)
class SpanStep:
    """A span of a thread."""

    thread: int
    span: Span


@dataclass(frozen=True, slots=True)
class ChildStep:
    """A thread begins, as a child of a fork."""

    thread: int
    fork: Fork


@dataclass(frozen=True, slots=True)
class JoinStep:
    """A fork of a thread, all of whose children have been visited."""

    thread: int
    fork: Fork


@dataclass(frozen=True, slots=True)
class _ForkStep:
    """A fork whose children come next."""

    thread: int
    fork: Fork


def walk(threads: Sequence[Thread]) -> Iterator[SpanStep | ChildStep | JoinStep]:
    """A thread's spans up to a fork, then each child with all below it, then its next spans. Without recursion."""
    waiting: list[SpanStep | ChildStep | JoinStep | _ForkStep] = _own(threads, 0)[::-1]
    while waiting:
        step = waiting.pop()
        if isinstance(step, _ForkStep):
            waiting.append(JoinStep(step.thread, step.fork))
            for child in reversed(step.fork.children):
                waiting += _own(threads, child)[::-1]
                waiting.append(ChildStep(child, step.fork))
        else:
            yield step


def _own(threads: Sequence[Thread], number: int) -> list[SpanStep | ChildStep | JoinStep | _ForkStep]:
    """What happens to one thread, in order."""
    thread = threads[number]
    steps: list[SpanStep | ChildStep | JoinStep | _ForkStep] = []
    forks = iter([*thread.forks, None])
    fork = next(forks)
    for place in range(len(thread.spans) + 1):
        while fork is not None and fork.at == place:
            steps.append(_ForkStep(number, fork))
            fork = next(forks)
        steps += [SpanStep(number, span) for span in thread.spans[place : place + 1]]
    return steps
