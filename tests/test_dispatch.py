"""The dispatcher of a fleet under random deaths, finishes and cancels, beside a naive account of what happened."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parallel_reason.fleet.dispatch import STARTS, Attempt, Dispatcher

ENGINES, BOUND = 3, 2


class Storm(RuleBasedStateMachine):
    """Every event that a fleet can meet, in any order; the account below is kept from outside."""

    def __init__(self):
        super().__init__()
        self.dispatcher = Dispatcher(ENGINES, BOUND)
        self.submitted = []
        self.ended = Counter()
        self.running = {}  # trace to its attempt
        self.stale = []
        self.serving = set()
        self.deaths = Counter()
        self.deaths_alone = Counter()
        self.cancelled = set()

    def take(self, attempts):
        for attempt in attempts:
            assert attempt.engine in self.serving
            assert attempt.trace not in self.running
            assert attempt.trace not in self.ended
            self.running[attempt.trace] = attempt

    def load(self, engine):
        return sum(attempt.engine == engine for attempt in self.running.values())

    @rule()
    def submit(self):
        trace = f"t{len(self.submitted)}"
        self.submitted.append(trace)
        self.dispatcher.submit(trace)
        self.take(self.dispatcher.deal())

    @rule(engine=st.integers(0, ENGINES - 1))
    def comes_up(self, engine):
        if engine not in self.serving:
            self.serving.add(engine)
            self.dispatcher.serves(engine)
            self.take(self.dispatcher.deal())

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finishes(self, data):
        attempt = data.draw(st.sampled_from(sorted(self.running.values(), key=lambda each: each.trace)))
        assert self.dispatcher.finished(attempt)
        del self.running[attempt.trace]
        self.ended[attempt.trace] += 1
        self.stale.append(attempt)
        self.take(self.dispatcher.deal())

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def an_old_attempt_reports_late(self, data):
        assert not self.dispatcher.finished(data.draw(st.sampled_from(self.stale)))

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def is_cancelled(self, data):
        trace = data.draw(st.sampled_from(self.submitted))
        stopped = self.dispatcher.cancel(trace)
        assert stopped == self.running.get(trace)
        if stopped is None and trace not in self.ended:
            self.ended[trace] += 1
        self.cancelled.add(trace)
        self.take(self.dispatcher.deal())

    @rule(engine=st.integers(0, ENGINES - 1), blame=st.booleans())
    def dies(self, engine, blame):
        lost = [attempt for attempt in self.running.values() if attempt.engine == engine]
        for attempt in lost:
            del self.running[attempt.trace]
            self.stale.append(attempt)
            self.deaths[attempt.trace] += blame
        self.serving.discard(engine)
        ended = self.dispatcher.died(engine, blame=blame)
        twice = [attempt.trace for attempt in lost if self.deaths[attempt.trace] >= 2]
        blamed = {trace for trace, why in ended.items() if why == "blamed"}
        assert blamed <= set(twice)
        assert len(blamed) <= 1
        assert not blamed or twice == list(blamed)
        assert {trace for trace, why in ended.items() if why == "cancelled"} <= self.cancelled
        self.ended.update(ended.keys())
        self.take(self.dispatcher.deal())

    @invariant()
    def every_trace_is_in_one_place(self):
        alive = [trace for trace in self.submitted if trace not in self.ended]
        assert set(self.ended.values()) <= {1}
        assert self.dispatcher.in_flight == len(self.running)
        assert self.dispatcher.waiting == len(alive) - len(self.running)

    @invariant()
    def no_engine_has_more_than_its_bound(self):
        assert max(self.load(engine) for engine in range(ENGINES)) <= BOUND

    @invariant()
    def no_trace_is_in_more_than_three_deaths(self):
        assert max(self.deaths.values(), default=0) <= 3

    @invariant()
    def none_waits_behind_a_younger_one_while_nobody_is_suspected(self):
        suspected = [trace for trace in self.submitted if self.deaths[trace] >= 2 and trace not in self.ended]
        waiting = [trace for trace in self.submitted if trace not in self.ended and trace not in self.running]
        if not suspected and waiting:
            assert all(self.load(engine) == BOUND for engine in self.serving)

    def teardown(self):
        for engine in range(ENGINES):
            if engine not in self.serving:
                self.comes_up(engine)
        while self.running:
            attempt = next(iter(self.running.values()))
            assert self.dispatcher.finished(attempt)
            del self.running[attempt.trace]
            self.ended[attempt.trace] += 1
            self.take(self.dispatcher.deal())
        assert self.ended == Counter(self.submitted)


TestStorm = Storm.TestCase
TestStorm.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def serving(engines, bound):
    dispatcher = Dispatcher(engines, bound)
    for engine in range(engines):
        dispatcher.serves(engine)
    return dispatcher


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5), st.integers(1, 4))
def test_the_oldest_goes_first_to_the_engine_with_the_fewest(steps, engines, bound):
    dispatcher, loads, running, next_out, number = serving(engines, bound), Counter(), [], 0, 0
    for submits in steps:
        if submits or not running:
            dispatcher.submit(str(number))
            number += 1
        else:
            attempt = running.pop(0)
            assert dispatcher.finished(attempt)
            loads[attempt.engine] -= 1
        for attempt in dispatcher.deal():
            assert attempt.trace == str(next_out)
            assert loads[attempt.engine] == min(loads[engine] for engine in range(engines)) < bound
            loads[attempt.engine] += 1
            running.append(attempt)
            next_out += 1


def test_traces_of_a_dead_engine_keep_their_place_before_younger_ones():
    dispatcher = serving(2, 2)
    for trace in "abcdef":
        dispatcher.submit(trace)
    assert [(each.trace, each.engine) for each in dispatcher.deal()] == [("a", 0), ("b", 1), ("c", 0), ("d", 1)]
    assert dispatcher.died(1) == {}
    assert dispatcher.finished(Attempt("a", 0, 1))
    assert dispatcher.deal() == [Attempt("b", 0, 2)]


def test_the_only_trace_on_two_engines_that_died_is_blamed_and_no_other():
    dispatcher = serving(2, 8)
    for trace in ["bad", "x", "y"]:
        dispatcher.submit(trace)
    where = {each.trace: each.engine for each in dispatcher.deal()}
    assert where == {"bad": 0, "x": 1, "y": 0}
    assert dispatcher.died(0) == {}
    assert {each.trace: each.engine for each in dispatcher.deal()} == {"bad": 1, "y": 1}
    assert dispatcher.finished(Attempt("y", 1, 2))
    assert dispatcher.died(1) == {"bad": "blamed"}


def killed_by(bad, traces, engines, bound):
    """Run traces of which some kill their engine; how each ended, and how many engines died."""
    dispatcher, ended, deaths = serving(engines, bound), {}, 0
    for trace in traces:
        dispatcher.submit(trace)
    running = dispatcher.deal()
    while running:
        attempt = next((each for each in running if each.trace in bad), running[0])
        if attempt.trace in bad:
            deaths += 1
            ended |= dispatcher.died(attempt.engine)
            running = [each for each in running if each.engine != attempt.engine]
            dispatcher.serves(attempt.engine)
        else:
            assert dispatcher.finished(attempt)
            ended[attempt.trace] = "finished"
            running.remove(attempt)
        running += dispatcher.deal()
    return ended, deaths


@given(st.sets(st.integers(0, 19), max_size=4), st.integers(1, 4), st.integers(1, 8))
def test_prompts_that_kill_engines_end_and_all_others_finish(bad, engines, bound):
    ended, deaths = killed_by(bad, range(20), engines, bound)
    assert ended == {trace: "blamed" if trace in bad else "finished" for trace in range(20)}
    assert deaths <= 3 * len(bad)


def test_an_engine_that_is_stopped_on_purpose_is_nobodys_fault():
    dispatcher = serving(1, 4)
    dispatcher.submit("a")
    for _ in range(5):
        assert len(dispatcher.deal()) == 1
        assert dispatcher.died(0, blame=False) == {}
        dispatcher.serves(0)


def test_engines_that_do_not_start_are_given_up_and_all_ends_with_the_last():
    dispatcher = Dispatcher(2, 4)
    for trace in "ab":
        dispatcher.submit(trace)
    for _ in range(STARTS):
        assert dispatcher.start_failed(0) == []
    assert dispatcher.is_lost(0)
    assert not dispatcher.hopeless
    ends = [dispatcher.start_failed(1) for _ in range(STARTS)]
    assert ends == [[], [], ["a", "b"]]
    assert dispatcher.hopeless


def test_a_start_that_worked_is_counted_anew():
    dispatcher = Dispatcher(1, 4)
    for _ in range(5):
        for _ in range(STARTS - 1):
            dispatcher.start_failed(0)
        dispatcher.serves(0)
        dispatcher.died(0)
    assert not dispatcher.is_lost(0)


def test_a_cancelled_trace_is_not_run_again_when_its_engine_dies():
    dispatcher = serving(1, 4)
    dispatcher.submit("a")
    (attempt,) = dispatcher.deal()
    assert dispatcher.cancel("a") == attempt
    assert dispatcher.died(0) == {"a": "cancelled"}
    assert dispatcher.cancel("never submitted") is None


@pytest.mark.parametrize("engines", [1, 3])
def test_one_engine_at_most_is_kept_for_a_suspect(engines):
    dispatcher = serving(engines, 4)
    for trace in "abcd":
        dispatcher.submit(trace)
    for _ in range(2):
        for attempt in dispatcher.deal():
            assert attempt.number < 3
        for engine in range(engines):
            dispatcher.died(engine)
            dispatcher.serves(engine)
    dispatcher.submit("young")
    dealt = dispatcher.deal()
    suspects = [each for each in dealt if each.trace in "abcd" and each.number == 3]
    assert len(suspects) <= 1
    assert all(each.engine != suspects[0].engine for each in dealt if suspects and each != suspects[0])
