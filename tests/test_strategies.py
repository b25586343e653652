"""Strategies over a model: what they answer, what they are charged, what they stop, and how they keep to a budget."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_reason import InputError, Session
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.strategies import Budget, find, program
from parallel_reason.strategies.recorded import Accounting, RecordedBranches, RecordedProblem, replay
from tests.letters import letter_tokenizer

EVERY = 10
LETTERS = letter_tokenizer(eos_token="<eos>")
PROMPT, PROBE = "Q", "P"


def letter(text):
    """The answer of a path: its last letter; E is none."""
    return text[-1] if text and text[-1] in "abc" else None


def scripted(branches):
    """A session whose path i samples branch i, and whose probes answer as the record has it."""

    def next_tokens(request, sampled):
        path, *probe = [int(part) for part in request.label.split(".")[1:]]
        probes, length, final = branches[path]
        if probe:
            passed = (len(request.ids) - len(PROMPT) - len(PROBE)) // EVERY
            said = probes[min(passed, len(probes)) - 1] if passed and probes else "E"
            return LETTERS.convert_tokens_to_ids([said, "<eos>"][len(sampled) :])
        text = ["x"] * (length - 2) + [final, "<eos>"]
        return LETTERS.convert_tokens_to_ids(text[request.first_draw + len(sampled) :])

    engine = ScriptedEngine(LETTERS, next_tokens)
    return Session(engine, bind("none", LETTERS)), engine


def live(branches, name, budget=None):
    """The trace of a strategy on scripted branches, and the tokens that the engine sampled."""
    session, engine = scripted(branches)

    async def run():
        made = program(find(name), budget=budget, answer_of=letter, probe_text=PROBE, probe_tokens=2)
        [trace] = await session.run_program(made, PROMPT)
        assert await session.kv_is_free()
        return trace

    trace = asyncio.run(run())
    return trace, sum(len(output.ids) for output in engine.outputs)


def served(branches, name, budget=None):
    problem = RecordedProblem.of("?", "a", EVERY, branches, lambda said: said in "abc")
    paths = RecordedBranches(problem, np.arange(len(branches)), Accounting(2), budget)
    number = replay(find(name).run, paths)
    said = None if number < 0 else problem.names[number]
    return said, paths.critical_path, paths.total_tokens


@st.composite
def recorded(draw):
    """Branches of lengths that are well apart, so that the order in which they end is sure."""
    branches = []
    for place in draw(st.permutations(range(8))):
        length = 15 + 12 * place + draw(st.integers(0, 3))
        probes = draw(st.lists(st.sampled_from("abE"), min_size=length // EVERY, max_size=length // EVERY))
        branches.append((probes, length, draw(st.sampled_from("abE"))))
    return branches


LOCKSTEP = ["single", "sc:n=8", "asc:n=8,threshold=0.8", "esc:n=8,window=2", "sac:n=6,every=10,patience=2",
            "parallel_probe:n=8,every=10,warm_up=1,patience=2,stable=3", "deep_prune:n=8,prefix=30"]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(recorded(), st.sampled_from(LOCKSTEP))
def test_a_strategy_does_the_same_over_a_model_and_over_its_record(branches, name):
    trace, sampled = live(branches, name)
    said, critical, total = served(branches, name)
    assert trace.status == "finished", trace.stop_reason
    assert trace.answer == said
    assert trace.ledger.sampled_tokens == sampled == total
    assert trace.ledger.critical_path_tokens == critical


APART = [(["a"] * 9, 30 + 20 * place, said) for place, said in enumerate("aaabbaaa")]


@pytest.mark.parametrize(
    "name", ["short_mk:m=3,k=8", "shortest:k=8", "first_consensus:n=8,threshold=0.9", "first_consensus:n=8,longest=75"]
)
def test_strategies_that_go_by_time_stop_the_others_soon(name):
    trace, sampled = live(APART, name)
    said, critical, total = served(APART, name)
    assert trace.answer == said
    assert trace.ledger.sampled_tokens == sampled
    assert abs(sampled - total) <= 8 * 4  # paths that run are stopped within a few tokens
    assert abs(trace.ledger.critical_path_tokens - critical) <= 4
    stopped = [thread for thread in trace.threads if thread.status == "cancelled"]
    assert {thread.stop_reason for thread in stopped} == {"stopped by the strategy"}


@settings(max_examples=15, deadline=None)
@given(recorded(), st.sampled_from(LOCKSTEP), st.integers(20, 400), st.integers(10, 120))
def test_a_budget_bounds_the_ledger_and_cuts_as_on_a_record(branches, name, total, critical):
    budget = Budget(total_tokens=total, critical_path=critical)
    trace, sampled = live(branches, name, budget)
    probes = 2 * 8 * (name.startswith(("sac", "parallel", "deep")))  # the last probes of all paths
    assert sampled == trace.ledger.sampled_tokens <= total + probes
    assert trace.ledger.critical_path_tokens <= critical + 2 * bool(probes)
    assert (trace.answer, sampled) == served(branches, name, budget)[::2]


def test_a_deadline_ends_it_with_the_answers_that_are_there():
    def next_tokens(request, sampled):
        slow = request.label == "0.1"
        return LETTERS.convert_tokens_to_ids(["x"] * 10_000 if slow else ["a", "<eos>"][len(sampled) :])

    engine = ScriptedEngine(LETTERS, next_tokens, context=20_000, delay_s=lambda request: 0.001)

    async def run():
        session = Session(engine, bind("none", LETTERS))
        [trace] = await session.run_program(
            program(find("sc:n=2"), answer_of=letter, budget={"deadline_s": 0.3}), PROMPT
        )
        return trace, await session.kv_is_free()

    trace, free = asyncio.run(run())
    assert (trace.answer, free) == ("a", True)
    assert trace.threads[2].stop_reason == "the budget is used up"


def test_a_wrong_budget_is_one_line():
    with pytest.raises(InputError, match="budget has no field 'tokens'; it has total_tokens"):
        program(find("sc"), budget={"tokens": 3})


def test_limits_of_the_trace_hold_and_what_they_stop_does_not_vote():
    session, _ = scripted(APART)
    made = program(find("sc:n=8"), answer_of=letter)
    [trace] = asyncio.run(session.run_program(made, PROMPT, limits={"tokens_per_thread": 80}))
    assert {thread.status for thread in trace.threads[1:]} == {"finished", "length"}
    assert trace.answer == "a"
    [trace] = asyncio.run(session.run_program(made, PROMPT, limits={"children": 2}))
    assert sum(thread.status == "finished" for thread in trace.threads[1:]) == 2
