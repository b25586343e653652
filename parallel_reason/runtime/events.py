"""What a stream of one trace yields, in the order in which it happened: enough to draw the run live."""

from dataclasses import dataclass

from parallel_reason.trace import Status, Trace


@dataclass(frozen=True, slots=True)
class ThreadStarted:
    """A thread was started; ``text`` is its header. The root starts with the prompt."""

    trace: str
    label: str
    parent: str | None
    text: str


@dataclass(frozen=True, slots=True)
class TokensSampled:
    """A thread sampled tokens; ``text`` is what they add to the text before. The last one may add text alone.

    Attributes:
        logprobs: natural-log probability of each under the model at temperature 1, [tokens].
        top_logprobs: token id to log-prob of the most likely tokens, if asked for, [tokens] or empty.
    """

    trace: str
    label: str
    ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[dict[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ThreadEnded:
    """A thread ended."""

    trace: str
    label: str
    status: Status
    stop_reason: str


@dataclass(frozen=True, slots=True)
class ForkJoined:
    """All children of a fork have ended, and the parent goes on after ``text``."""

    trace: str
    label: str
    children: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class TraceFinished:
    """The trace is complete; always the last event."""

    trace: Trace


Event = ThreadStarted | TokensSampled | ThreadEnded | ForkJoined | TraceFinished
