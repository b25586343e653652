"""Random traces, and the most naive reading of one; shared by the tests."""

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from parallel_reason.ledger import tally
from parallel_reason.trace import Fork, Malformed, Span, Thread, Trace

settings.register_profile("steady", deadline=None, max_examples=40)  # no clock: the machine may be busy
settings.load_profile("steady")

WORDS = 323  # in the Countdown vocabulary
COUNTS = st.integers(0, 500)
SECONDS = st.floats(0, 1e4)
LINES = st.text(max_size=8)


class Token(NamedTuple):
    """A token of a trace, told apart from all others by its owner, span and place in the span."""

    owner: str
    span: int
    place: int
    id: int
    origin: str


@st.composite
def spans(draw, origins=("prompt", "sampled", "injected"), least=0):
    ids = draw(st.lists(st.integers(0, WORDS - 1), min_size=least, max_size=4))
    origin = draw(st.sampled_from(origins))
    known = origin == "sampled" and draw(st.booleans())
    return Span(ids=ids, origin=origin, logprobs=[draw(st.floats(-99, 0)) for _ in ids] if known else [])


@st.composite
def threads(draw, label="0", depth=2, runnable=False, detailed=False):
    """A thread and all below it, ``detailed`` with statuses, counts and times. A ``runnable`` one is such as a
    controller makes: text that it did not sample opens every thread and follows every fork, so no token predicts two
    sampled ones."""
    given = spans(("prompt", "injected"), least=1)
    written = [draw(given)] if runnable else []
    forks, born = [], 0
    for _ in range(draw(st.sampled_from([2, 3, 1, 0]))):
        written += draw(st.lists(spans(), max_size=2))
        if depth and draw(st.sampled_from([True, True, False])):
            labels = [f"{label}.{born + k}" for k in range(draw(st.sampled_from([2, 3, 1, 0])))]
            born += len(labels)
            forks.append(
                Fork(
                    at=len(written),
                    join="message",
                    shares_prefix=draw(st.booleans()),
                    children=[draw(threads(below, depth - 1, runnable, detailed)) for below in labels],
                )
            )
            written += [draw(given)] if runnable else []
    thread = Thread(label=label, parent=label.rpartition(".")[0] or None, spans=written, forks=forks)
    return Thread(**{**dict(thread), **draw(DETAILS)}) if detailed else thread


DETAILS = st.fixed_dictionaries(
    {
        "malformed": st.lists(st.builds(Malformed, at=COUNTS, reason=LINES), max_size=2),
        "status": st.sampled_from(["finished", "length", "cancelled", "failed"]),
        **dict.fromkeys(["why", "text"], LINES),
        **dict.fromkeys(["prefilled_tokens", "cached_tokens", "recomputed_tokens"], COUNTS),
        **dict.fromkeys(["queued_s", "running_s", "waiting_s"], SECONDS),
    }
)


@st.composite
def traces(draw, depth=2, runnable=False, detailed=False):
    root = draw(threads("0", depth, runnable, detailed))
    if not detailed:
        return Trace(dialect="spawn_join", model="m", prompt="p", root=root)
    ledger = tally(root, draw(SECONDS), draw(st.none() | SECONDS))
    names = {name: draw(LINES) for name in ("dialect", "model", "prompt")}
    return Trace(**names, root=root, answer=draw(st.none() | LINES), ledger=ledger)


def own_tokens(thread, span):
    return [
        Token(thread.label, span, place, token, thread.spans[span].origin)
        for place, token in enumerate(thread.spans[span].ids)
    ]


def read(thread, before=()):
    """``(thread, text)`` for a thread and all below it, parents first; the text is what the thread saw as it decoded:
    what it was born with, and then its own tokens."""
    text, below = list(before), []
    for place in range(len(thread.spans) + 1):
        for fork in thread.forks:
            if fork.at == place:
                for child in fork.children:
                    below += read(child, text if fork.shares_prefix else ())
        if place < len(thread.spans):
            text += own_tokens(thread, place)
    return [(thread, text), *below]


def depth_first(thread):
    """Every token once: a thread's own up to a fork, then all below the fork, then the thread's next."""
    for place in range(len(thread.spans) + 1):
        for fork in thread.forks:
            if fork.at == place:
                for child in fork.children:
                    yield from depth_first(child)
        if place < len(thread.spans):
            yield from own_tokens(thread, place)
