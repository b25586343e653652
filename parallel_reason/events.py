"""What a stream of one trace yields, in the order in which it happened: enough to draw the run live."""

from dataclasses import dataclass

from parallel_reason.trace import Status, Trace


@dataclass(frozen=True, slots=True)
class Spawned:
    """A thread was forked; ``text`` is what its parent told it. The root is spawned with the prompt."""

    label: str
    parent: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """A thread sampled tokens; ``text`` is what they add to what it wrote before."""

    label: str
    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A thread ended."""

    label: str
    status: Status
    why: str


@dataclass(frozen=True, slots=True)
class Joined:
    """All children of a fork came back, and the parent goes on after ``text``."""

    label: str
    children: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The trace is complete; always the last event."""

    trace: Trace


Event = Spawned | Tokens | Ended | Joined | Finished
