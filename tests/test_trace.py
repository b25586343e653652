import json

import pytest
from hypothesis import given
from pydantic import ValidationError

from parallel_reason.errors import TraceFileError
from parallel_reason.trace import Fork, Span, Thread, Trace, from_json
from tests.strategies import traces


def thread(label, parent=None, **fields):
    return Thread(**{"label": label, "parent": parent, "status": "finished", **fields})


def example():
    inner = Fork(at=0, join_rule="message", children=[3, 4])
    forks = [Fork(at=1, join_rule="message", children=[1, 2]), Fork(at=2, join_rule="message", children=[5])]
    spans = [
        Span(ids=[5, 6], origin="prompt"),
        Span(ids=[7, 8], origin="sampled", logprobs=[-0.5, -1.25], policy_version=3, started_s=0.5, ended_s=2.5),
        Span(ids=[9], origin="injected"),
    ]
    threads = [
        thread("0", spans=spans, forks=forks), thread("0.0", 0), thread("0.1", 0, forks=[inner]), thread("0.1.0", 2),
        thread("0.1.1", 2), thread("0.2", 0),
    ]  # fmt: skip
    return Trace(id="one", dialect="spawn_join", model="m", prompt="p", threads=threads)


@given(traces(detailed=True))
def test_json_gives_back_the_same_trace(trace):
    line = trace.to_json()
    assert "\n" not in line
    assert from_json(line) == trace
    assert from_json(line.encode()) == trace


def test_a_token_of_probability_zero_survives_json():
    trace = example()
    trace.root.spans[1].logprobs[0] = float("-inf")
    assert from_json(trace.to_json()) == trace


def test_every_trace_has_an_id_of_its_own_and_a_short_repr():
    one, other = [Trace(dialect="d", model="m", prompt="p" * 9999, threads=[thread("0")]) for _ in range(2)]
    assert one.id != other.id
    assert len(repr(one)) < 300
    assert one.id in repr(one)


@pytest.mark.parametrize(
    ("path", "key", "value", "named"),
    [
        ([], "colour", 1, "colour"),
        ([], "version", 3, "version"),
        ([], "version", "2", "version"),
        ([], "threads", [], "threads"),
        (["threads", 0], "mood", 1, "threads.0.mood"),
        (["threads", 0, "spans", 1], "logprobs", [-0.5], "2 tokens has 1 log-probs"),
        (["threads", 0, "spans", 1], "top_logprobs", [{"7": -0.5}], "2 tokens has 2 log-probs and 1 top log-probs"),
        (["threads", 0, "spans", 0], "logprobs", [-0.5, -0.5], "prompt span of 2 tokens has 2"),
        (["threads", 0, "spans", 2], "logprobs", [-0.5], "injected span of 1 tokens has 1"),
        (["threads", 0, "spans", 0], "origin", "dreamt", "threads.0.spans.0.origin"),
        (["threads", 0, "spans", 0], "ids", [1, "x"], "threads.0.spans.0.ids.1"),
        (["threads", 0], "status", "bored", "threads.0.status"),
        (["threads", 0, "forks", 1], "at", 4, "forks at [1, 4] of 3 spans"),
        (["threads", 0, "forks", 0], "at", -1, "forks at [-1, 2] of 3 spans"),
        (["threads", 0, "forks", 0], "at", 3, "forks at [3, 2] of 3 spans"),
        (["threads", 0, "forks", 0], "join_rule", "glue", "threads.0.forks.0.join_rule"),
        (["threads", 2, "forks", 0], "at", 1, "thread 0.1: forks at [1] of 0 spans"),
        (["threads", 0, "forks", 0], "children", [1], "thread 0.1 of parent 0 is in no fork"),
        (["threads", 0, "forks", 0], "children", [1, 2, 6], "child 6"),
        (["threads", 0, "forks", 0], "children", [1, 1, 2], "child 1"),
        (["threads", 2, "forks", 0], "children", [2, 3, 4], "child 2"),
        (["threads", 2, "forks", 0], "children", [3, 4, 5], "child 5"),
        (["threads", 1], "parent", 2, "thread 0.0 of parent 2"),
        (["threads", 0], "parent", 0, "thread 0 of parent 0"),
        (["threads", 1], "label", "0.1", "two threads"),
        (["threads", 1], "label", "1.0", "labelled 1.0"),
        (["threads", 1], "label", "0.x", "labelled 0.x"),
        (["threads", 1], "label", "0.1.0", "labelled 0.1.0"),
        (["ledger"], "naps", 3, "ledger.naps"),
    ],
)
def test_a_record_that_breaks_the_rules_is_refused_by_name(path, key, value, named):
    record = json.loads(example().to_json())
    place = record
    for step in path:
        place = place[step]
    place[key] = value
    with pytest.raises(TraceFileError) as error:
        from_json(json.dumps(record))
    assert named in str(error.value)


@pytest.mark.parametrize("missing", ["threads", "dialect", "model", "prompt"])
def test_a_missing_part_is_named(missing):
    record = json.loads(example().to_json())
    del record[missing]
    with pytest.raises(TraceFileError, match=missing):
        from_json(json.dumps(record))


def test_a_status_is_never_a_default():
    record = json.loads(example().to_json())
    del record["threads"][1]["status"]
    with pytest.raises(TraceFileError, match=r"threads\.1\.status"):
        from_json(json.dumps(record))


@pytest.mark.parametrize("line", ["", "{", "[]", "null", '{"version":2}x', b"\xff\xfe", "1" * 5000, "[" * 5000])
def test_what_is_no_json_record_is_refused(line):
    with pytest.raises(TraceFileError, match="not a trace of version 2"):
        from_json(line)


def test_the_rules_hold_for_records_made_in_python_too():
    with pytest.raises(ValidationError, match="sampled span of 1 tokens has 2 log-probs"):
        Span(ids=[1], origin="sampled", logprobs=[-1.0, -1.0])
    with pytest.raises(ValidationError, match=r"thread 0: forks at \[1\] of 0 spans"):
        thread("0", forks=[Fork(at=1, join_rule="message", children=[])])
    with pytest.raises(ValidationError, match="colour"):
        thread("0", colour="red")


# What version 1 wrote for a root that forked twice; the children of the first had a fork of their own.
VERSION_1 = {
    "version": 1,
    "dialect": "spawn_join",
    "model": "m",
    "prompt": "p",
    "answer": "a",
    "ledger": {"sampled_tokens": 3, "wall_s": 1.5, "first_token_s": None, "recomputed_tokens": 2},
    "root": {
        "label": "0",
        "parent": None,
        "why": "<eos>",
        "status": "finished",
        "prefilled_tokens": 7,
        "malformed": [{"at": 2, "reason": "r"}],
        "spans": [
            {"ids": [5, 6], "origin": "prompt", "logprobs": [], "shift": 0, "drops": 0},
            {"ids": [7], "origin": "sampled", "logprobs": [-0.5], "shift": 0, "drops": 0},
            {"ids": [], "origin": "injected", "logprobs": [], "shift": -1, "drops": 2},
        ],
        "forks": [
            {
                "at": 1,
                "join": "graft",
                "shares_prefix": False,
                "children": [
                    {
                        "label": "0.0",
                        "parent": "0",
                        "why": "x",
                        "status": "length",
                        "forks": [{"at": 0, "join": "message", "children": [{"label": "0.0.0", "parent": "0.0"}]}],
                    },
                    {"label": "0.1", "parent": "0", "status": "failed"},
                ],
            },
            {"at": 2, "join": "relinearise", "children": [{"label": "0.2", "parent": "0", "status": "cancelled"}]},
        ],
    },
}


def test_a_trace_of_version_1_is_converted():
    trace = from_json(json.dumps(VERSION_1))
    assert [(one.label, one.parent, one.status, one.stop_reason) for one in trace.threads] == [
        ("0", None, "finished", "<eos>"), ("0.0", 0, "length", "x"), ("0.0.0", 1, "finished", ""),
        ("0.1", 0, "failed", ""), ("0.2", 0, "cancelled", ""),
    ]  # fmt: skip
    assert [(fork.at, fork.join_rule, fork.shares_prefix, fork.children) for fork in trace.root.forks] == [
        (1, "graft", False, [1, 3]),
        (2, "relinearise", True, [4]),
    ]
    assert (trace.root.spans[2].taken_back, trace.root.spans[2].shift) == (2, -1)
    assert (trace.prompt_ids, trace.answer, trace.ledger.wall_s) == ([5, 6], "a", 1.5)
    assert (trace.sampling, trace.limits, trace.started_at) == (None, None, None)
    assert from_json(trace.to_json()) == trace


def test_a_trace_of_version_1_that_is_damaged_says_so():
    with pytest.raises(TraceFileError, match=r"a trace of version 1 that cannot be converted: .*label"):
        from_json(json.dumps(VERSION_1 | {"root": {"label": "1.0"}}))
    with pytest.raises(TraceFileError, match="a trace of version 1 that cannot be converted: 'root'"):
        from_json('{"version": 1}')
