"""Bounds on tokens and forks: which one stops a thread, and how a trace's own bounds are dealt out to its threads."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_reason import Limits, SamplingParams
from parallel_reason.runtime import transitions
from parallel_reason.runtime.budget import Allotment, DealtAllotments, next_tokens
from tests.scripted import run, session

MAYBE = st.none() | st.integers(1, 60)
LIMITS = st.builds(
    Limits,
    tokens=MAYBE,
    tokens_per_thread=MAYBE,
    critical_path_tokens=MAYBE,
    context=st.none() | st.integers(2, 80),
)


def thread(prompt, sampled, before=0):
    """A thread that sees so many tokens of a prompt and sampled so many, after a chain of ``before``."""
    live = transitions.start([1] * prompt)
    transitions.sample(live, transitions.Sample([2] * sampled))
    live.critical_path += before
    return live


@settings(deadline=None)
@given(LIMITS, st.integers(2, 100), MAYBE, MAYBE, st.integers(1, 60), st.integers(0, 40), st.integers(0, 40))
def test_a_thread_may_sample_up_to_its_nearest_bound_which_is_named(limits, window, own, left, prompt, sampled, before):
    live, left = thread(prompt, sampled, before), left if limits.tokens is not None else None
    room = {f"limits.context={window}": window - prompt - sampled}
    if limits.tokens_per_thread is not None:
        room[f"limits.tokens_per_thread={limits.tokens_per_thread}"] = limits.tokens_per_thread - sampled
    if limits.critical_path_tokens is not None:
        name = f"limits.critical_path_tokens={limits.critical_path_tokens}"
        room[name] = limits.critical_path_tokens - before - sampled
    if own is not None:
        room[f"sampling.max_tokens={own}"] = own - sampled
    if left is not None:
        room[f"limits.tokens={limits.tokens}"] = left
    tokens, bound = next_tokens(live, Allotment(left, 0), limits, window, SamplingParams(max_tokens=own))
    assert tokens == max(0, *(min(room.values()), 0))
    assert room[bound] == min(room.values())


class Child:
    """A child that samples as many tokens as it wants, in requests of random size, and asks for more at its end."""

    def __init__(self, wants):
        self.wants = wants
        self.used = 0

    async def run(self, dealer, number, rng):
        mine = dealer.each[number]
        while self.used < self.wants:
            if not mine.tokens:
                if await dealer.more(number, "tokens"):
                    continue
                break
            for _ in range(rng.randint(0, 3)):
                await asyncio.sleep(0)
            some = rng.randint(1, min(mine.tokens, self.wants - self.used))
            mine.tokens -= some
            self.used += some
        dealer.end(number)


def used(total, wants, seed):
    """How many tokens each child came to use, and what is left, under a timing that the seed decides."""
    rng, children = random.Random(seed), [Child(count) for count in wants]

    async def all_at_once():
        dealer = DealtAllotments(Allotment(total, 0), len(children))
        runs = [child.run(dealer, number, rng) for number, child in enumerate(children)]
        await asyncio.wait_for(asyncio.gather(*runs), 10)
        return dealer.rest().tokens

    left = asyncio.run(all_at_once())
    return [child.used for child in children], left


@settings(deadline=None)
@given(st.integers(0, 60), st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 9), st.integers(10, 19))
def test_the_bound_is_never_passed_nothing_is_wasted_and_timing_changes_nothing(total, wants, one, other):
    tokens, left = used(total, wants, one)
    assert sum(tokens) + left == total
    assert sum(tokens) == min(total, sum(wants))
    assert used(total, wants, other) == (tokens, left)


def test_a_bound_is_dealt_out_evenly_and_the_first_get_what_is_over():
    dealer = DealtAllotments(Allotment(8, 2), 3)
    assert [(one.tokens, one.forks) for one in dealer.each] == [(3, 1), (3, 1), (2, 0)]
    unbounded = DealtAllotments(Allotment(None, 64), 2)
    assert [(one.tokens, one.forks) for one in unbounded.each] == [(None, 32), (None, 32)]
    assert unbounded.rest() == Allotment(None, 64)


def test_a_child_that_waits_and_is_cancelled_gets_nothing_and_holds_nobody_up():
    async def check():
        dealer = DealtAllotments(Allotment(2, 0), 3)
        waits = [asyncio.create_task(dealer.more(number, "tokens")) for number in (1, 2)]
        await asyncio.sleep(0)
        dealer.withdraw(1)
        assert await waits[0] is False
        dealer.end(1)
        assert not waits[1].done()
        dealer.end(0)
        assert await waits[1] is True
        assert dealer.each[2].tokens == 2

    asyncio.run(check())


@pytest.mark.parametrize("bound", ["tokens", "forks"])
def test_when_all_wait_and_nothing_is_left_all_are_refused(bound):
    async def check():
        dealer = DealtAllotments(Allotment(0, 0), 3)
        return await asyncio.wait_for(asyncio.gather(*(dealer.more(number, bound) for number in range(3))), 5)

    assert asyncio.run(check()) == [False] * 3


@pytest.mark.parametrize("tokens", [40, 60, 100])
def test_the_bound_on_all_tokens_holds_for_forks_within_forks(tokens):
    texts = {"0": ["a<spawn>x<sep>y</spawn>", "b" * 200], "0.0": ["a<spawn>x<sep>y</spawn>", "c" * 200]}
    texts |= {"0.1": ["d" * 200], "0.0.0": ["e</thread>"], "0.0.1": ["f" * 200]}
    [trace] = run(session(texts), limits=Limits(depth=3, tokens=tokens))
    assert trace.ledger.sampled_tokens == tokens
