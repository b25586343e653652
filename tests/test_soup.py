"""Random token soup from a random model, thousands of traces: nothing raises, hangs or leaks."""

from collections import Counter

import pytest

from parallel_reason import Limits, SamplingParams
from parallel_reason.trace import from_json, tally

LIMITS = Limits(depth=3, children=8, forks=20, threads=8, tokens_per_thread=80, tokens=600)


@pytest.fixture(scope="module")
def traces(soup):
    return soup.generate(["abc", "t<spawn>", "<join>"], SamplingParams(temperature=1.5, n=700, seed=11), LIMITS)


def test_thousands_of_traces_end_with_a_status_and_leave_no_kv(soup, traces):
    assert len(traces) == 2100
    assert soup.kv_is_free()
    ends = Counter((thread.status, thread.stop_reason.split("=")[0]) for trace in traces for thread in trace.threads)
    assert {status for status, _ in ends} <= {"finished", "length", "cancelled"}
    assert ends["finished", "</thread>"] > 100
    assert ends["finished", "<eos>"] > 100
    assert ends["length", "limits.tokens_per_thread"] > 10


def test_forks_nest_repeat_and_go_wrong(traces):
    ledgers = [trace.ledger for trace in traces]
    assert sum(ledger.forks for ledger in ledgers) > 100
    assert sum(ledger.malformed_forks for ledger in ledgers) > 100
    assert any(thread.depth >= 2 for trace in traces for thread in trace.threads)
    assert any(len(thread.forks) > 1 for trace in traces for thread in trace.threads)


def test_every_trace_survives_json_and_keeps_its_bounds(traces):
    for trace in traces:
        assert from_json(trace.to_json()) == trace
        assert trace.ledger.sampled_tokens <= 600
        assert trace.ledger.forks <= 20
        assert all(fork.children and thread.depth < 3 for thread in trace.threads for fork in thread.forks)
        again = tally(trace.threads, trace.ledger.wall_s, trace.ledger.first_token_s, trace.ledger.kv_blocks)
        assert again == trace.ledger


def tokens(trace):
    """All tokens of a trace, with their thread and origin."""
    return [(thread.label, span.origin, span.ids) for thread in trace.threads for span in thread.spans]


def test_the_same_seed_gives_the_same_trace_in_another_batch(soup, traces):
    again = soup.generate("abc", SamplingParams(temperature=1.5, n=20, seed=11), LIMITS)
    assert [tokens(trace) for trace in again] == [tokens(trace) for trace in traces[:20]]
    assert len({str(tokens(trace)) for trace in again}) > 10  # and no two samples are alike for want of noise
