"""Random traces, and the most naive reading of one; shared by the tests."""

from itertools import chain
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from parallel_reason import Limits, SamplingParams
from parallel_reason.trace import Fork, MalformedFork, Span, Thread, Trace, tally

settings.register_profile("steady", deadline=None, max_examples=40)  # no clock: the machine may be busy
settings.load_profile("steady")

WORDS = 323  # in the Countdown vocabulary
COUNTS = st.integers(0, 500)
SECONDS = st.floats(0, 1e4)
LINES = st.text(max_size=8)
JOINS = ("graft", "relinearise", "message")


class Token(NamedTuple):
    """A token of a trace, distinct from all others by its owner, span and place in the span."""

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
        {"shift": draw(st.sampled_from([0, 0, -1, 2])), "taken_back": draw(st.sampled_from([0, 0, 0, 1, 3]))}
        if wild
        else {}
    )
    logprobs = [draw(st.floats(-99, 0)) for _ in ids] if known else []
    top = [{token: value} for token, value in zip(ids, logprobs, strict=False)] if draw(st.booleans()) else []
    return Span(ids=ids, origin=origin, logprobs=logprobs, top_logprobs=top, **moves)


def add_thread(draw, threads, label, parent, depth, runnable, detailed, wild):
    """Append a thread and all below it to ``threads``, depth first; returns its number."""
    number = len(threads)
    threads.append(None)
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
                    join_rule=draw(st.sampled_from(JOINS if wild else ["message"])),
                    shares_prefix=draw(st.sampled_from([True, True, False])),
                    children=[
                        add_thread(draw, threads, below, number, depth - 1, runnable, detailed, wild)
                        for below in labels
                    ],
                )
            )
            written += [draw(given)] if runnable else []
    details = draw(DETAILS) if detailed else {"status": "finished"}
    threads[number] = Thread(label=label, parent=parent, spans=written, forks=forks, **details)
    return number


@st.composite
def thread_lists(draw, depth=2, runnable=False, detailed=False, wild=False):
    """The threads of a trace, ``detailed`` with statuses, counts and times. A ``runnable`` one is such as a run makes:
    text that it did not sample opens every thread and follows every fork, so no token predicts two sampled ones. A
    ``wild`` one has forks of every join rule, copies, shifts, and tokens that were taken back."""
    threads = []
    add_thread(draw, threads, "0", None, depth, runnable, detailed, wild)
    return threads


MAYBE = st.none() | COUNTS
DETAILS = st.fixed_dictionaries(
    {
        "malformed": st.lists(st.builds(MalformedFork, at=COUNTS, reason=LINES), max_size=2),
        "status": st.sampled_from(["finished", "length", "cancelled", "failed"]),
        **dict.fromkeys(["stop_reason", "text"], LINES),
        **dict.fromkeys(["prefilled_tokens", "cached_tokens", "recomputed_tokens"], MAYBE),
        **dict.fromkeys(["queued_s", "running_s", "waiting_s"], SECONDS),
    }
)
CIRCUMSTANCES = st.fixed_dictionaries(
    {
        **dict.fromkeys(["dialect", "model", "prompt", "engine", "id"], LINES),
        "answer": st.none() | LINES,
        "task": st.none() | LINES,
        "sample": COUNTS,
        "messages": st.none() | st.just([{"role": "user", "content": "hi"}]),
        "sampling": st.none() | st.builds(SamplingParams, temperature=st.floats(0, 2), seed=st.none() | COUNTS),
        "limits": st.none() | st.builds(Limits, tokens=st.none() | st.integers(1, 9)),
        "dialect_options": st.dictionaries(LINES, COUNTS | LINES, max_size=2),
        "versions": st.dictionaries(LINES, LINES, max_size=2),
        "started_at": st.none() | SECONDS,
        "errors": st.lists(LINES, max_size=2),
        "prompt_ids": st.lists(COUNTS, max_size=3),
    }
)


@st.composite
def traces(draw, depth=2, runnable=False, detailed=False, wild=False):
    threads = draw(thread_lists(depth, runnable, detailed, wild))
    if not detailed:
        return Trace(dialect="spawn_join", model="m", prompt="p", threads=threads)
    ledger = tally(threads, draw(SECONDS), draw(st.none() | SECONDS))
    return Trace(**draw(CIRCUMSTANCES), threads=threads, ledger=ledger)


def own_tokens(thread, span):
    return [
        Token(thread.label, span, place, token, thread.spans[span].origin)
        for place, token in enumerate(thread.spans[span].ids)
    ]


def read(trace, thread, before=()):
    """``(thread, text)`` for a thread and all below it, parents first; the text is what the thread saw as it decoded:
    what it was born with, and then its own tokens."""
    text, below = list(before), []
    for place in range(len(thread.spans) + 1):
        for fork in thread.forks:
            if fork.at == place:
                for child in trace.children(fork):
                    below += read(trace, child, text if fork.shares_prefix else ())
        if place < len(thread.spans):
            text += own_tokens(thread, place)
    return [(thread, text), *below]


def seen(trace, thread, events, born=((), 0)):
    """``(tokens, position)``: what a thread that was born with ``born`` sees after its first so many spans and forks,
    each token with its position, and where its next one stands; read backwards, from the definition of each rule."""
    if events == 0:
        return born
    event = happened(thread)[events - 1]
    tokens, position = seen(trace, thread, events - 1, born)
    if isinstance(event, int):
        return placed(thread, event, tokens, position)
    birth = (tokens, position) if event.shares_prefix else ((), 0)
    children = trace.children(event)
    ends = [seen(trace, child, len(happened(child)), birth) for child in children if sampled_any(child)]
    if event.join_rule == "relinearise" and ends and sampled_any(children[0]):
        return ends[0]
    if event.join_rule == "graft" and ends:
        return tuple(dict.fromkeys(chain(tokens, *(end for end, _ in ends)))), max(place for _, place in ends)
    return tokens, position


def placed(thread, span, tokens, position):
    """``seen``, one span later."""
    removed = min(thread.spans[span].taken_back, len(tokens))
    if removed:
        tokens, position = tokens[:-removed], tokens[-removed][1]
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


def readings(trace, thread, born=((), 0)):
    """For every token of a thread and of all below it: which tokens it sees, itself last, and its position."""
    found = {}
    for number, event in enumerate(happened(thread)):
        before = seen(trace, thread, number, born)
        if isinstance(event, int):
            text, _ = placed(thread, event, *before)
            for length in range(len(text) - len(thread.spans[event].ids), len(text)):
                token, position = text[length]
                found[token] = [other for other, _ in text[: length + 1]], position
        else:
            for child in trace.children(event):
                found |= readings(trace, child, before if event.shares_prefix else ((), 0))
    return found


def depth_first(trace, thread=None):
    """Every token once: a thread's own up to a fork, then all below the fork, then the thread's next."""
    thread = thread or trace.root
    for place in range(len(thread.spans) + 1):
        for fork in thread.forks:
            if fork.at == place:
                for child in trace.children(fork):
                    yield from depth_first(trace, child)
        if place < len(thread.spans):
            yield from own_tokens(thread, place)
