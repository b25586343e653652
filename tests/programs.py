"""Random programs, what plays them on a thread, and the length of their critical path by a clock of their own."""

import asyncio
from contextlib import aclosing

from hypothesis import strategies as st

LETTERS = st.lists(st.integers(4, 30), min_size=1, max_size=4)  # token ids that are no tags and no ends of text
COUNT = st.integers(1, 7)
RULES = ("graft", "relinearise", "message")
SIMPLE = st.one_of(
    st.tuples(st.just("sample"), COUNT),
    st.tuples(st.just("sample"), COUNT),
    st.tuples(st.just("stream"), COUNT),
    st.tuples(st.just("write"), LETTERS),
    st.tuples(st.just("take_back"), st.integers(1, 4)),
    st.tuples(st.just("ask"), LETTERS, COUNT),
    st.tuples(st.just("score"), LETTERS),
)


def with_threads(body):
    """Verbs that make threads, which do what ``body`` says."""
    child = st.tuples(LETTERS | st.just([]), body)
    fork = st.tuples(
        st.just("fork"),
        st.lists(child, min_size=1, max_size=3),
        st.sampled_from(RULES),
        st.permutations(range(3)),
        st.integers(0, 3),  # how many of them are joined
        LETTERS,
    )
    probe = st.tuples(st.just("probe"), LETTERS, body, COUNT, st.booleans())
    return st.lists(SIMPLE | fork | fork | probe, max_size=5)


PROGRAMS = with_threads(st.recursive(st.lists(SIMPLE, max_size=3), with_threads, max_leaves=4))


async def play(thread, verbs, clock=0):
    """Do what ``verbs`` say with a thread; returns sampled tokens from the start of the trace on its critical path."""
    for verb, *rest in verbs:
        before = thread.sampled_tokens
        if verb == "sample":
            await thread.sample(*rest)
        elif verb == "stream":
            async with aclosing(thread.stream(20)) as tokens:
                async for _ in tokens:
                    if thread.sampled_tokens - before >= rest[0]:
                        break
        elif verb == "write":
            thread.write(rest[0])
        elif verb == "take_back":
            thread.take_back(rest[0])
        elif verb == "score":
            assert await thread.score(rest[0]) < 0
        elif verb == "ask":
            clock += await asked(thread, *rest)
        elif verb == "fork":
            clock = await forked(thread, *rest, clock=clock)
        else:
            clock = await probed(thread, *rest, clock=clock)
        clock += thread.sampled_tokens - before if verb in ("sample", "stream") else 0
    return clock


async def asked(thread, ids, count):
    """A thread that sees nothing of this one, for which it waits."""
    child = thread.probe(ids, shares_prefix=False)
    await child.sample(count)
    thread.join(child)
    return child.sampled_tokens


async def forked(thread, children, rule, order, count, text, *, clock):
    threads = thread.fork([header for header, _ in children])
    clocks = await asyncio.gather(*(play(one, body, clock) for one, (_, body) in zip(threads, children, strict=True)))
    chosen = [place for place in order if place < len(threads)][:count]
    thread.join([threads[place] for place in chosen], rule, text)
    return max(clocks)


async def probed(thread, text, body, count, joined, *, clock):
    """A probe that runs while its thread samples on."""
    before, own = thread.sampled_tokens, asyncio.ensure_future(thread.sample(count))
    await asyncio.sleep(0.002 * (count % 3))
    probe = thread.probe(text)
    begun = clock + thread.sampled_tokens - before
    ended = await play(probe, body, begun)
    await own
    clock += thread.sampled_tokens - before
    if joined:
        thread.join(probe, text=text)
        clock = max(clock, ended)
    return clock
