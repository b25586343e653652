"""Random traces, and the most naive reading of one; shared by the tests."""

from itertools import chain
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
JOINS = ("graft", "relinearise", "message")


class Token(NamedTuple):
    """A token of a trace, told apart from all others by its owner, span and place in the span."""

    owner: str
    span: int
    place: int
    id: int
    origin: str


@st.composite
def spans(draw, origins=("prompt", "sampled", "injected"), least=0, wild=False):
    ids = draw(st.lists(st.integers(0, WORDS - 1), min_size=least, max_size=4))
    origin = draw(st.sampled_from([*origins, "copied"] if wild else origins))
    known = origin == "sampled" and draw(st.booleans())
    moves = (
        {"shift": draw(st.sampled_from([0, 0, -1, 2])), "drops": draw(st.sampled_from([0, 0, 0, 1, 3]))} if wild else {}
    )
    return Span(ids=ids, origin=origin, logprobs=[draw(st.floats(-99, 0)) for _ in ids] if known else [], **moves)


@st.composite
def threads(draw, label="0", depth=2, runnable=False, detailed=False, wild=False):
    """A thread and all below it, ``detailed`` with statuses, counts and times. A ``runnable`` one is such as a
    controller makes: text that it did not sample opens every thread and follows every fork, so no token predicts two
    sampled ones. A ``wild`` one has forks of every join rule, copies, shifts, and tokens that were taken back."""
    given = spans(("prompt", "injected"), least=1)
    written = [draw(given)] if runnable else []
    written += [draw(spans(("sampled",), least=1))] if wild and draw(st.sampled_from([True, True, False])) else []
    forks, born = [], 0
    for _ in range(draw(st.sampled_from([2, 3, 1, 0]))):
        written += draw(st.lists(spans(wild=wild), max_size=2))
        if depth and draw(st.sampled_from([True, True, False])):
            labels = [f"{label}.{born + k}" for k in range(draw(st.sampled_from([2, 3, 1, 0])))]
            born += len(labels)
            forks.append(
                Fork(
                    at=len(written),
                    join=draw(st.sampled_from(JOINS if wild else ["message"])),
                    shares_prefix=draw(st.sampled_from([True, True, False])),
                    children=[draw(threads(below, depth - 1, runnable, detailed, wild)) for below in labels],
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
def traces(draw, depth=2, runnable=False, detailed=False, wild=False):
    root = draw(threads("0", depth, runnable, detailed, wild))
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


def seen(thread, events, born=((), 0)):
    """``(tokens, position)``: what a thread that was born with ``born`` sees after its first so many spans and forks,
    each token with its position, and where its next one stands; read backwards, from the definition of each rule."""
    if events == 0:
        return born
    event = happened(thread)[events - 1]
    tokens, position = seen(thread, events - 1, born)
    if isinstance(event, int):
        return placed(thread, event, tokens, position)
    birth = (tokens, position) if event.shares_prefix else ((), 0)
    ends = [seen(child, len(happened(child)), birth) for child in event.children if sampled_any(child)]
    if event.join == "relinearise" and ends and sampled_any(event.children[0]):
        return ends[0]
    if event.join == "graft" and ends:
        return tuple(dict.fromkeys(chain(tokens, *(end for end, _ in ends)))), max(place for _, place in ends)
    return tokens, position


def placed(thread, span, tokens, position):
    """``seen``, one span later."""
    drops = min(thread.spans[span].drops, len(tokens))
    if drops:
        tokens, position = tokens[:-drops], tokens[-drops][1]
    own = own_tokens(thread, span)
    first = position + thread.spans[span].shift
    return (*tokens, *zip(own, range(first, first + len(own)), strict=True)), first + len(own) if own else position


def happened(thread):
    """The forks of a thread, and the numbers of its spans, in the order in which they came."""
    events = []
    for place in range(len(thread.spans) + 1):
        events += [fork for fork in thread.forks if fork.at == place]
        events += [place] if place < len(thread.spans) else []
    return events


def sampled_any(thread):
    return sum(len(span.ids) for span in thread.spans if span.origin == "sampled") > 0


def readings(thread, born=((), 0)):
    """For every token of a thread and of all below it: which tokens it sees, itself last, and its position."""
    found = {}
    for number, event in enumerate(happened(thread)):
        before = seen(thread, number, born)
        if isinstance(event, int):
            text, _ = placed(thread, event, *before)
            for length in range(len(text) - len(thread.spans[event].ids), len(text)):
                token, position = text[length]
                found[token] = [other for other, _ in text[: length + 1]], position
        else:
            for child in event.children:
                found |= readings(child, before if event.shares_prefix else ((), 0))
    return found


def depth_first(thread):
    """Every token once: a thread's own up to a fork, then all below the fork, then the thread's next."""
    for place in range(len(thread.spans) + 1):
        for fork in thread.forks:
            if fork.at == place:
                for child in fork.children:
                    yield from depth_first(child)
        if place < len(thread.spans):
            yield from own_tokens(thread, place)
