"""Rejection sampling: which traces are kept, why others are not, and a run that goes on."""

import pytest

from parallel_reason import Fork, InputError, Span, Thread, Trace, TraceWriter, read_traces
from parallel_reason.tasks import find
from parallel_reason.trace import MalformedFork, tally
from rl.distill import DistillConfig, distill, first_problems, rejection, select

TASK = find("countdown")
PROBLEM = next(TASK.train(0))


def trace(text="x", tokens=5, forked=True, status="finished", malformed=False, child="finished", answer=None):
    fork = Fork(at=1, join_rule="message", children=[1])
    root = Thread(
        label="0", spans=[Span(ids=[1] * tokens, origin="sampled")], forks=[fork] if forked else [], status=status,
        malformed=[MalformedFork(at=0, reason="?")] if malformed else [], text=text,
    )  # fmt: skip
    below = Thread(label="0.0", parent=0, spans=[Span(ids=[1], origin="sampled")], status=child)
    threads = [root, below] if forked else [root]
    return Trace(
        task=PROBLEM.key, dialect="d", model="m", prompt="p", threads=threads, ledger=tally(threads), answer=answer
    )


@pytest.mark.parametrize(
    ("of", "correct", "shortest", "reason"),
    [
        (trace(), True, None, None),
        (trace(), True, 7, None),
        (trace(), True, 6, "is no shorter than the sequential one"),
        (trace(), False, None, "is wrong"),
        (trace(forked=False), True, None, "does not fork"),
        (trace(malformed=True), True, None, "has a malformed fork"),
        (trace(status="length"), True, None, "did not finish (length)"),
        (trace(child="failed"), True, None, "has a thread that failed"),
    ],
)
def test_a_trace_is_rejected_for_one_reason(of, correct, shortest, reason):
    assert rejection(of, correct, must_fork=True, shortest=shortest) == reason
    if reason == "does not fork":
        assert rejection(of, correct, must_fork=False, shortest=shortest) is None


class Agreeing:
    """A task whose answers are right if they say so."""

    def correct(self, problem, answer):
        return answer == "right"


def test_the_shortest_distinct_ones_of_a_problem_are_kept(tmp_path):
    long, short, wrong = trace("a", 9, answer="right"), trace("b", 4, answer="right"), trace("c", answer="wrong")
    kept, rejected = select([PROBLEM], [long, short, wrong, short], Agreeing(), DistillConfig(out=tmp_path, each=1))
    assert [one.text for one in kept] == ["b"]
    assert rejected == {"is wrong": 1, "says the same as another": 1, "beyond 1 of a problem": 1}


def test_a_trace_must_be_shorter_than_the_shortest_correct_sequential_one(tmp_path):
    file = tmp_path / "sequential.jsonl"
    with TraceWriter(file) as writer:
        for tokens, answer in ((5, "wrong"), (8, "right"), (12, "right")):
            writer.write(trace("s", tokens, forked=False, answer=answer))
    config = DistillConfig(out=tmp_path, each=2, shorter_than=file)
    kept, rejected = select(
        [PROBLEM], [trace("a", 6, answer="right"), trace("b", 7, answer="right")], Agreeing(), config
    )
    assert [one.text for one in kept] == ["a"]
    assert rejected == {"is no shorter than the sequential one": 1}
    with pytest.raises(InputError, match="cannot read"):
        select([PROBLEM], [], Agreeing(), DistillConfig(out=tmp_path, shorter_than=tmp_path / "none"))


def test_a_run_keeps_what_it_has_and_samples_the_rest(tmp_path):
    config = DistillConfig.model_validate(
        {"out": tmp_path, "engine": "torch", "problems": 2, "sampling": {"temperature": 1.0, "n": 2, "seed": 0},
         "limits": {"children": 2}, "each": 2}
    )  # fmt: skip
    kept, rejected = distill(config)
    sampled = list(read_traces(tmp_path / "sampled.jsonl"))
    assert len(sampled) == 4
    assert kept + sum(rejected.values()) == 4
    written = list(read_traces(tmp_path / "kept.jsonl"))
    assert len(written) == kept
    (tmp_path / "sampled.jsonl").write_text("".join(one.to_json() + "\n" for one in sampled[:3]))
    assert distill(config) == (kept, rejected)
    again = {one.id for one in read_traces(tmp_path / "sampled.jsonl")}
    assert len(again) == 4
    assert {one.id for one in sampled[:3]} <= again
    problems = {problem.key: problem for problem in first_problems(TASK, 2, 0)}
    assert all(TASK.correct(problems[one.task], one.answer) for one in written)


def test_a_task_with_fewer_problems_gives_all_of_them(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"problem": "t", "answer": 1}\n')
    (tmp_path / "train.jsonl").write_text('{"problem": "a", "answer": 1}\n{"problem": "b", "answer": 2}\n')
    task = find(f"aime:{tmp_path}/train.jsonl:{tmp_path}/test.jsonl")
    assert {problem.key for problem in first_problems(task, 10, 0)} == {"a", "b"}
