"""Strategies whose paths are traces of a dialect."""

import asyncio
import math

import pytest

from parallel_reason import InputError, Session
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.strategies import find, over_traces
from tests.scripted import WORDS, ids

FORKING = {"0": "ab<spawn>x<sep>y</spawn>", "0.0": "aa<return>r</thread>", "0.1": "b<return>s</thread>"}


def answers(said, name, delay_s=None, **options):
    """A strategy over traces that all fork, and of which number i, by its seed, answers ``said[i]``."""
    roots = {}

    def next_tokens(request, sampled):
        if request.label != "0":
            return ids(FORKING[request.label])[len(sampled) :]
        path = roots.setdefault(request.trace, len(roots))
        if request.first_draw == 0:
            return ids(FORKING["0"])[len(sampled) :]
        return ids(said[path] + "<eos>")[request.first_draw + len(sampled) - len(ids(FORKING["0"])) :]

    engine = ScriptedEngine(WORDS, next_tokens, delay_s=delay_s)
    session = Session(engine, bind("spawn_join", WORDS))

    async def run():
        answer, traces = await over_traces(find(name), session, "Q", {"temperature": 1.0, "seed": 0}, **options)
        return answer, traces, await session.kv_is_free()

    return asyncio.run(run())


def test_a_vote_over_traces_that_fork():
    answer, traces, free = answers("abacb", "sc:n=5")
    assert (answer, free) == ("a", True)
    assert len(traces) == 5
    assert all(trace.ledger.forks == 1 for trace in traces)
    assert [trace.sampling.seed for trace in traces] == [0, 1, 2, 3, 4]


def test_a_unanimous_window_ends_it():
    answer, traces, _ = answers("abcccc", "esc:n=6,window=2")
    assert (answer, len(traces)) == ("c", 4)


def test_those_that_are_not_awaited_are_cancelled():
    seen = []

    def only_the_first_goes_on(request):
        seen.append(request.trace)
        return 0.0 if request.trace == seen[0] else math.inf

    answer, traces, free = answers("aaaa", "short_mk:m=1,k=4", only_the_first_goes_on)
    assert (answer, free) == ("a", True)
    assert len(traces) == 1
    assert len(set(seen)) == 4


def test_what_a_trace_cannot_do_is_refused_by_name():
    with pytest.raises(InputError, match="use sc, asc, esc, shortest or short_mk"):
        answers("aa", "parallel_probe:n=2")


# Each trace that is not cut short samples 18 tokens, 14 of them one after another.
WHOLE, LONGEST = 18, 14


def test_traces_share_a_budget_of_all_tokens():
    answer, traces, free = answers("aaaa", "esc:n=4,window=2", budget={"total_tokens": 2 * WHOLE + 2 * 5})
    assert (answer, free) == ("a", True)
    assert [trace.status for trace in traces[:2]] == ["finished"] * 2
    assert sum(trace.ledger.sampled_tokens for trace in traces) <= 2 * WHOLE + 2 * 5
    _, traces, _ = answers("abcd", "esc:n=4,window=2", budget={"total_tokens": 2 * WHOLE + 2 * 5})
    assert [trace.status for trace in traces] == ["finished"] * 2 + ["length"] * 2
    assert sum(trace.ledger.sampled_tokens for trace in traces) == 2 * WHOLE + 2 * 5


def test_traces_that_follow_one_another_share_a_budget_of_the_critical_path():
    _, traces, free = answers("abcdef", "esc:n=6,window=2", budget={"critical_path": LONGEST + 4})
    assert free
    assert [trace.ledger.critical_path_tokens for trace in traces] == [LONGEST] * 2 + [4] * 2
    assert [trace.status for trace in traces] == ["finished"] * 2 + ["length"] * 2


def test_a_deadline_ends_the_traces_that_run_and_starts_no_others():
    answer, traces, free = answers("abcd", "esc:n=4,window=2", lambda request: 0.02, budget={"deadline_s": 0.1})
    assert (answer, free) == (None, True)
    assert [(trace.status, trace.stop_reason) for trace in traces] == [("cancelled", traces[0].stop_reason)] * 2
    assert "deadline" in traces[0].stop_reason
