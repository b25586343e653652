import json

import pytest
from hypothesis import given
from pydantic import ValidationError

from parallel_reason import Trace, read_traces
from parallel_reason.errors import TraceFileError
from parallel_reason.trace import Fork, Span, Thread
from tests.strategies import traces


def child(label, **fields):
    return Thread(label=label, parent=label.rpartition(".")[0], **fields)


def example():
    inner = Fork(at=0, join="message", children=[child("0.1.0"), child("0.1.1")])
    forks = [
        Fork(at=1, join="message", children=[child("0.0"), child("0.1", forks=[inner])]),
        Fork(at=2, join="message", children=[child("0.2")]),
    ]
    spans = [
        Span(ids=[5, 6], origin="prompt"),
        Span(ids=[7, 8], origin="sampled", logprobs=[-0.5, -1.25]),
        Span(ids=[9], origin="injected"),
    ]
    return Trace(dialect="spawn_join", model="m", prompt="p", root=Thread(label="0", spans=spans, forks=forks))


@given(traces(detailed=True))
def test_json_gives_back_the_same_trace(trace):
    line = trace.to_json()
    assert "\n" not in line
    assert Trace.from_json(line) == trace
    assert Trace.from_json(line.encode()) == trace


def test_a_token_of_probability_zero_survives_json():
    trace = example()
    trace.root.spans[1].logprobs[0] = float("-inf")
    assert Trace.from_json(trace.to_json()) == trace


@given(traces())
def test_threads_come_parents_first_and_children_in_order(trace):
    labels = [thread.label for thread in trace.threads]
    assert labels == sorted(labels, key=lambda label: [int(part) for part in label.split(".")])
    every = []
    waiting = [trace.root]
    while waiting:
        thread = waiting.pop()
        every.append(thread.label)
        waiting += [c for fork in thread.forks for c in fork.children]
    assert sorted(labels) == sorted(every)


def test_walk_of_a_thread_leaves_out_what_is_not_below_it():
    second = example().root.forks[0].children[1]
    assert [thread.label for thread in second.walk()] == ["0.1", "0.1.0", "0.1.1"]


@pytest.mark.parametrize(
    ("path", "key", "value", "named"),
    [
        ([], "colour", 1, "colour"),
        ([], "version", 2, "version"),
        ([], "version", "1", "version"),
        (["root"], "mood", 1, "root.mood"),
        (["root", "spans", 1], "logprobs", [-0.5], "2 tokens has 1 log-probs"),
        (["root", "spans", 0], "logprobs", [-0.5, -0.5], "prompt span of 2 tokens has 2"),
        (["root", "spans", 2], "logprobs", [-0.5], "injected span of 1 tokens has 1"),
        (["root", "spans", 0], "origin", "dreamt", "root.spans.0.origin"),
        (["root", "spans", 0], "ids", [1, "x"], "root.spans.0.ids.1"),
        (["root"], "status", "bored", "root.status"),
        (["root", "forks", 1], "at", 4, "forks at [1, 4] of 3 spans"),
        (["root", "forks", 0], "at", -1, "forks at [-1, 2] of 3 spans"),
        (["root", "forks", 0], "at", 3, "forks at [3, 2] of 3 spans"),
        (["root", "forks", 0], "join", "glue", "root.forks.0.join"),
        (["root", "forks", 0, "children", 1, "forks", 0], "at", 1, "thread 0.1: forks at [1] of 0 spans"),
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
        Trace.from_json(json.dumps(record))
    assert named in str(error.value)


@pytest.mark.parametrize("missing", ["root", "dialect", "model", "prompt"])
def test_a_missing_part_is_named(missing):
    record = json.loads(example().to_json())
    del record[missing]
    with pytest.raises(TraceFileError, match=missing):
        Trace.from_json(json.dumps(record))


@pytest.mark.parametrize("line", ["", "{", "[]", "null", '{"version":1}x', b"\xff\xfe", "1" * 5000])
def test_what_is_no_json_record_is_refused(line):
    with pytest.raises(TraceFileError, match="not a trace of version 1"):
        Trace.from_json(line)


def test_the_rules_hold_for_records_made_in_python_too():
    with pytest.raises(ValidationError, match="sampled span of 1 tokens has 2 log-probs"):
        Span(ids=[1], origin="sampled", logprobs=[-1.0, -1.0])
    with pytest.raises(ValidationError, match=r"thread 0: forks at \[1\] of 0 spans"):
        Thread(label="0", forks=[Fork(at=1, join="message", children=[])])
    with pytest.raises(ValidationError, match="colour"):
        Thread(label="0", colour="red")


@pytest.mark.parametrize(("label", "parent"), [("1.0", "0"), ("0.x", "0"), ("0.0.0", "0"), ("0.0", "0.1")])
def test_a_child_whose_label_is_not_below_its_parent_is_refused(label, parent):
    with pytest.raises(ValidationError, match="label"):
        Thread(label="0", forks=[Fork(at=0, join="message", children=[Thread(label=label, parent=parent)])])


def test_a_file_is_read_line_by_line_and_blank_lines_are_passed_over(tmp_path):
    first, second = example(), example()
    second.prompt = "line\nbreaks\r\u2028\u0085 and ünïcode"
    path = tmp_path / "traces.jsonl"
    path.write_text(f"\n{first.to_json()}\n  \n\n{second.to_json()}", encoding="utf-8")
    assert list(read_traces(path)) == [first, second]


@pytest.mark.parametrize("line", [b"{", b'{"version":2}', b'"\xff\xfe"'])
def test_a_bad_line_is_named_with_its_file_after_the_good_ones_are_read(tmp_path, line):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(example().to_json().encode() + b"\n\n" + line + b"\n")
    reader, good = read_traces(path), []
    with pytest.raises(TraceFileError) as error:
        good.extend(reader)
    assert good == [example()]
    assert f"{path}, line 3: " in str(error.value)
