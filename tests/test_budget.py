from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_reason.budget import Budget
from parallel_reason.limits import Limits

MAYBE = st.none() | st.integers(1, 60)
LIMITS = st.builds(
    Limits,
    tokens=MAYBE,
    tokens_per_thread=MAYBE,
    critical_path_tokens=MAYBE,
    context=st.none() | st.integers(2, 80),
)
WINDOWS = st.integers(2, 100)


@dataclass
class Decoding:
    """A thread, as a controller would keep count of it."""

    context: int
    critical_path: int
    sampled: int = 0
    granted: list[int] = field(default_factory=list)

    def take(self, budget):
        tokens, bound = budget.grant(self.context, self.sampled, self.critical_path)
        self.granted += [tokens] * (tokens > 0)
        return tokens, bound

    def sample(self, budget, used):
        granted = self.granted.pop()
        self.context += used
        self.critical_path += used
        self.sampled += used
        budget.refund(granted - used)


def left(limits, window, thread, everyone):
    """What is left under every bound, by its name; tokens held by a thread that is sampling are not left."""
    context = window if limits.context is None or limits.context > window else limits.context
    found = {f"limits.context={context}": context - thread.context}
    if limits.tokens_per_thread is not None:
        found[f"limits.tokens_per_thread={limits.tokens_per_thread}"] = limits.tokens_per_thread - thread.sampled
    if limits.critical_path_tokens is not None:
        name = f"limits.critical_path_tokens={limits.critical_path_tokens}"
        found[name] = limits.critical_path_tokens - thread.critical_path
    if limits.tokens is not None:
        taken = sum(one.sampled + sum(one.granted) for one in everyone)
        found[f"limits.tokens={limits.tokens}"] = limits.tokens - taken
    return found


@settings(deadline=None)
@given(LIMITS, WINDOWS, st.randoms(use_true_random=False))
def test_no_bound_is_ever_passed_and_the_one_that_is_reached_is_named(limits, window, rng):
    budget = Budget(limits, window)
    everyone = [Decoding(rng.randint(0, 60), rng.randint(0, 40)) for _ in range(rng.randint(1, 6))]
    budget.decoding = len(everyone)
    for _ in range(80):
        thread = rng.choice(everyone)
        if thread.granted:
            thread.sample(budget, rng.choice([thread.granted[0], rng.randint(0, thread.granted[0])]))
            continue
        have = left(limits, window, thread, everyone)
        tokens, bound = thread.take(budget)
        assert 0 <= tokens <= max(0, *have.values())
        assert all(tokens <= max(0, room) for room in have.values())
        assert (tokens == 0) == (min(have.values()) <= 0)  # no thread starves while there is room
        assert bound in have
        if tokens == 0:
            assert have[bound] <= 0
    if limits.tokens is not None:
        assert sum(thread.sampled + sum(thread.granted) for thread in everyone) <= limits.tokens


@settings(deadline=None)
@given(LIMITS, WINDOWS, st.integers(0, 60), st.integers(0, 40))
def test_a_thread_alone_samples_exactly_up_to_its_nearest_bound(limits, window, context, critical_path):
    budget, thread = Budget(limits, window), Decoding(context, critical_path)
    have = left(limits, window, thread, [thread])
    room = max(0, min(have.values()))
    tokens, bound = thread.take(budget)
    assert tokens == room
    assert have[bound] == min(have.values())
    if tokens:
        thread.sample(budget, tokens)
        assert thread.take(budget) == (0, bound)


@settings(deadline=None)
@given(LIMITS, WINDOWS, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), min_size=1, max_size=6))
def test_threads_that_take_turns_use_all_there_is(limits, window, starts):
    everyone = [Decoding(*start) for start in starts]
    budget = Budget(limits, window)
    budget.decoding = len(everyone)
    unlimited = limits.model_copy(update={"tokens": None})
    own = sum(max(0, min(left(unlimited, window, thread, []).values())) for thread in everyone)
    running = list(everyone)
    while running:
        for thread in list(running):
            if thread.take(budget)[0]:
                thread.sample(budget, thread.granted[0])
            else:
                running.remove(thread)
    assert sum(thread.sampled for thread in everyone) == min(own, own if limits.tokens is None else limits.tokens)


@pytest.mark.parametrize("threads", [2, 7, 50])
@pytest.mark.parametrize("spare", [0, 1, 1000])
def test_threads_that_ask_at_once_all_get_some(threads, spare):
    budget = Budget(Limits(tokens=threads + spare), 10_000)
    budget.decoding = threads
    granted = [budget.grant(0, 0, 0)[0] for _ in range(threads)]
    assert min(granted) >= 1
    assert max(granted) <= (threads + spare) / threads
    assert sum(granted) <= threads + spare


def test_what_comes_back_unused_is_granted_again():
    budget = Budget(Limits(tokens=10), 100)
    assert budget.grant(0, 0, 0) == (10, "limits.tokens=10")
    assert budget.grant(0, 0, 0) == (0, "limits.tokens=10")
    budget.refund(4)
    assert budget.grant(0, 0, 0) == (4, "limits.tokens=10")


def test_a_prompt_that_fills_the_window_gets_nothing():
    assert Budget(Limits(context=500), 100).grant(100, 0, 0) == (0, "limits.context=100")
    assert Budget(Limits(), 100).grant(130, 0, 0) == (0, "limits.context=100")
    assert Budget(Limits(context=50), 100).grant(49, 0, 0) == (1, "limits.context=50")
