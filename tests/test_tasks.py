import itertools
import json
import time
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_reason import InputError
from parallel_reason.tasks import TaskProblem, find
from parallel_reason.tasks.countdown import Problem
from parallel_reason.tasks.grading import boxed, graded, same_integer, same_math

ATTACKS = [
    "9**9**9",
    "9^{9^{9^{9}}}",
    "__import__('os').system('true')",
    "\u0663",
    "1" * 10_000_000,
    "\x00",
    "{" * 100_000,
]
GYM = pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="reasoning-gym needs a C compiler at set-up")


def first(iterator, count):
    return list(itertools.islice(iterator, count))


@pytest.mark.parametrize("name", ["countdown:3", "countdown", "countdown:5"])
def test_countdown_trains_on_nothing_that_it_tests(name):
    task = find(name)
    tested = {problem.key for problem in task.test(200)}
    trained = first(task.train(0), 50)
    assert len(tested) == 200
    assert tested.isdisjoint(problem.key for problem in trained)
    assert trained == first(task.train(0), 50)
    assert trained != first(task.train(1), 50)
    assert all(len(problem.reference.numbers) == int(name.partition(":")[2] or 4) for problem in trained)


def expression(answer):
    """Countdown steps as one expression: the last step with every result written out."""
    written = {}
    for step in answer.split(","):
        sides, result = step.split("=")
        operator = next(sign for sign in "+-*/" if sign in sides)
        a, b = sides.split(operator)
        written[result] = f"({written.get(a, a)}{operator}{written.get(b, b)})"
    return written[result]


@GYM
def test_reasoning_gym_agrees_with_our_verifier_of_countdown():
    task, theirs = find("countdown"), find("reasoning_gym:countdown")
    problem = TaskProblem("k", "t", Problem((3, 5, 7, 11), 26))
    entry = {"metadata": {"numbers": [3, 5, 7, 11], "target": 26}}
    right = "3+5=8,8+7=15,15+11=26"
    for answer in (right, "3+5=8,8+7=15,11-15=4", "11+7=18"):
        their = theirs.correct(TaskProblem("k", "t", entry), expression(answer))
        assert their == task.correct(problem, answer) == (answer == right)


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_no_answer_fools_or_holds_up_a_verifier(attack, tmp_path):
    (tmp_path / "test.jsonl").write_text('{"problem": "1+2", "answer": "3"}\n')
    for name in ("countdown", f"aime:{tmp_path}/test.jsonl"):
        task = find(name)
        assert not task.correct(task.test(1)[0], attack)


def test_a_grader_that_hangs_raises_or_dies_says_wrong_and_the_next_is_graded():
    assert graded(time.sleep, 60, seconds=1) == 0
    assert graded(divmod, 1, 0) == 0
    assert graded(__import__("os")._exit, 0) == 0
    assert not same_math("3", "\\boxed{9**9**9**9}", seconds=3)
    assert same_math("\\frac{1}{2}", "so it is \\boxed{0.5}")
    assert not same_math("3", "\\boxed{4}")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("\\boxed{025}", True), ("thus \\boxed{25}.", True), ("25", True), ("\\boxed{\\boxed{3}} \\boxed{25}", True),
        ("\\boxed{25} or \\boxed{26}", False), ("\\boxed{2\u0665}", False), ("25 or 26", False), ("\\boxed{25", False),
        ("the answer\nis 25", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_aime_is_graded_by_the_last_boxed_integer(answer, right):
    assert same_integer("25", answer) == right


@given(st.text(alphabet="{}a\\boxed ", max_size=60))
def test_what_is_boxed_has_balanced_braces(text):
    found = boxed(text)
    if found is not None and "\\boxed{" in text:
        assert found.count("{") == found.count("}")
        assert found in text


def test_problems_of_files_are_split_by_their_text(tmp_path):
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(json.dumps({"problem": f"p{n}", "answer": n}) + "\n" for n in range(5)))
    test.write_text('{"problem": "p3", "answer": 3}\n\n')
    task = find(f"jsonl:{train}:{test}")
    assert task.name == f"jsonl:{train}:{test}"
    two_epochs = [problem.key for problem in first(task.train(0), 8)]
    assert sorted(two_epochs) == sorted(["p0", "p1", "p2", "p4"] * 2)
    assert [problem.reference for problem in task.test()] == ["3"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "has no problems"), ('{"problem": "a"}', "line 1: give a text under 'problem' and its 'answer'"),
        ('{"problem": "a", "answer": 1}\n{"pro', "line 2: "), ("[1]", "line 1: give"), (None, "No such file"),
        (b"\xff", "utf-8"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, written, said):
    file = tmp_path / "test.jsonl"
    if written is not None:
        file.write_bytes(written if isinstance(written, bytes) else written.encode())
    with pytest.raises(InputError, match=said) as refused:
        find(f"jsonl:{file}").test()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["chess", "countdown:7", "jsonl:", "aime", "countdown:\u0663", pytest.param("reasoning_gym:no", marks=GYM)]
)
def test_a_task_that_is_not_there_is_refused_by_name(name):
    with pytest.raises(InputError, match=r"there is no task|has no dataset"):
        find(name)
    with pytest.raises(InputError, match="test problems only"):
        next(find("aime:x.jsonl").train(0))


@GYM
def test_a_dataset_of_reasoning_gym_is_scored_by_itself():
    task = find("reasoning_gym:chain_sum")
    tested, trained = task.test(5), first(task.train(0), 20)
    assert {problem.key for problem in tested}.isdisjoint(problem.key for problem in trained)
    assert task.correct(tested[0], tested[0].reference["answer"])
    assert task.correct(tested[0], f"\\boxed{{{tested[0].reference['answer']}}}")
    assert not task.correct(tested[0], "1")
