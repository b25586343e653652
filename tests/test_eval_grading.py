r"""Grading beside lm-evaluation-harness's own on the same answers: every disagreement is listed, with who is right.

docs/evaluation.md has the table. lm-eval's files are loaded alone: they need nothing of the package.
"""

import importlib.util
import json
from pathlib import Path

import pytest

from parallel_reason import InputError
from parallel_reason.evaluation import make_plan
from parallel_reason.evaluation.published import BY_DIALECT, OTHERS
from parallel_reason.prompts import load, names
from parallel_reason.tasks import find, hub
from parallel_reason.tasks.grading import integer, letter, same_integer, same_math

# reference, answer, whether it is right, whether we say so, whether lm-eval does
AIME = [
    ("33", r"\boxed{033}", True, True, False),
    ("336", r"so \boxed{336^\circ}.", True, True, True),
    ("336", r"\boxed{336^{\circ}}", True, True, True),
    ("25", r"\boxed{24} no, \boxed{25}", True, True, True),
    ("25", r"\boxed{25} no, \boxed{24}", False, False, False),
    ("25", "25", True, True, True),
    ("25", "$25$", True, True, True),
    ("25", "x = 25", True, True, True),
    ("25", r"\boxed{n = 25}", True, True, True),
    ("25", r"\boxed{25\text{ units}}", True, True, True),
    ("25", r"\boxed{25 \text{units}}", True, True, False),
    ("25", r"\boxed{25\%}", True, True, True),
    ("25", r"\boxed{\$25}", True, True, True),
    ("25", r"\boxed{+25}", True, True, False),
    ("25", r"\boxed{$25$}", True, True, False),
    ("25", r"\boxed{\text{25}}", True, True, False),
    ("25", r"\boxed 25", True, False, True),
    ("25", r"\fbox{25}", True, False, False),
    ("25", r"\boxed{25.0}", True, False, False),
    ("25", r"\boxed{\frac{50}{2}}", True, False, False),
    ("25", "The answer is 25", True, False, False),
    ("25", r"\boxed{25", False, False, False),
    ("25", r"\boxed{25} and then \boxed{}", False, False, False),
    ("25", r"We see $a=25$ and $b=3$.", False, False, False),
    ("25", r"\boxed{2525}", False, False, False),
    ("25", r"\boxed{-25}", False, False, False),
]
MATH = [
    (r"\frac{1}{2}", "0.5", True, True, True),
    (r"\frac{1}{2}", r"\frac{2}{4}", True, True, False),
    ("10", r"10\%", True, True, True),
    ("3+2i", "2i+3", True, True, False),
    ("1000", "1,000", True, True, False),
    (r"\text{Evelyn}", "Evelyn", True, True, False),
    ("5", "x=5", True, True, True),
    (r"\left(1,2\right)", "(1, 2)", True, True, True),
    ("[0,1]", "(0,1)", False, False, False),
    (r"\sqrt{8}", r"2\sqrt2", True, True, False),
    ("90", r"90^\circ", True, True, True),
    ("x^2+2x+1", "(x+1)^2", True, True, False),
    ("2", r"2 \text{ cm}", True, True, True),
    (r"\frac{3}{4}", "3/4", True, True, True),
    (r"\pi", "3.14159", False, False, False),
    ("-1", "1", False, False, False),
    ("1,2", "2,1", True, True, False),
    (r"(3,\pi/2)", r"\left( 3, \frac{\pi}{2} \right)", True, True, False),
    ("2516_8", "2516", False, True, False),
    ("0.333333", r"\frac13", False, True, False),
]


def lm_eval(task):
    spec = importlib.util.find_spec("lm_eval")
    if spec is None:
        pytest.skip("lm-eval is not installed")
    file = Path(spec.origin).parent / "tasks" / task / "utils.py"
    found = importlib.util.spec_from_file_location(f"lm_eval_{task}", file)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("reference", "answer", "right", "ours", "theirs"), AIME)
def test_integers_beside_lm_evals_aime(reference, answer, right, ours, theirs):
    assert same_integer(reference, answer) == ours
    assert bool(lm_eval("aime").process_results({"answer": reference}, [answer])["exact_match"]) == theirs
    assert right or not ours  # strict: what is wrong is never right, whatever else is missed


@pytest.mark.parametrize(("reference", "answer", "right", "ours", "theirs"), MATH)
def test_math_verify_beside_lm_evals_math(reference, answer, right, ours, theirs):
    assert same_math(reference, f"Therefore \\boxed{{{answer}}}.") == ours
    assert lm_eval("hendrycks_math").is_equiv(answer, reference) == theirs


def test_the_table_of_the_page_is_this_one():
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    for reference, answer, right, ours, theirs in AIME + MATH:
        if ours != theirs:
            row = f"| `{reference}` | `{answer}` | {'ours' if ours == right else 'lm-eval'} |"
            assert row in page, row


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (r"\boxed{B}", "B"), (r"\boxed{\text{b}}", "B"), (r"\boxed{(C)}", "C"), ("Answer: D", "D"), ("B", "B"),
        ("A long text.\nThe answer is $A$", "A"), ("Answer: A. No.\nAnswer: B", "B"), ("the answer is a number", None),
        (r"\boxed{25}", None), ("", None), (None, None), ("Answer: " * 100_000, None),
    ],
)  # fmt: skip
def test_the_letter_of_a_choice_is_found(answer, found):
    assert letter(answer) == found


def test_a_file_of_choices_is_a_task_with_its_letters(tmp_path):
    file = tmp_path / "c.jsonl"
    rows = [
        {"problem": "Which?", "choices": ["one", "two", "three"], "answer": "two"},
        {"problem": "And?", "choices": ["x", "y"], "answer": "A"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = find(f"choice:{file}")
    first, second = task.test()
    assert first.text == "Which?\n\nA) one\nB) two\nC) three"
    assert task.correct(first, "so \\boxed{B}")
    assert task.correct(second, "Answer: A")
    assert not task.correct(second, "Answer: B")
    assert task.vote("\\boxed{b}") == "B"
    for row, says in (
        ({"problem": "p", "answer": "A"}, "line 1: give 2 to 10 texts"),
        ({"problem": "p", "answer": "four", "choices": ["a", "b"]}, "'four' is none of the choices"),
        ({"problem": "p", "answer": "a", "choices": ["a", "a"]}, "more than one of the choices"),
    ):
        file.write_text(json.dumps(row))
        with pytest.raises(InputError, match=says):
            task.test()


def test_a_published_set_is_read_by_datasets(tmp_path, monkeypatch):
    """From a folder with the fields that the set has on the Hub."""
    pytest.importorskip("datasets")
    fields = ["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
    rows = [dict(zip(fields, (f"q{n}", "right", "x", "y", "z"), strict=True)) for n in range(12)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    gpqa = hub.SETS["gpqa"]
    here = hub.HubSet(str(tmp_path), gpqa.kind, gpqa.split, None, gpqa.problem, gpqa.answer, gpqa.wrong)
    monkeypatch.setitem(hub.SETS, "gpqa", here)
    problems = find("gpqa").test()
    assert len(problems) == 12
    assert len({problem.reference for problem in problems}) > 1  # the right choice is not always in one place
    assert all(f"{problem.reference}) right" in problem.text for problem in problems)
    assert find("gpqa").test(3) == problems[:3]
    with pytest.raises(InputError, match="20 problems were asked for; gpqa has 12"):
        find("gpqa").test(20)
    with pytest.raises(InputError, match="gpqa is for tests only"):
        find("gpqa").train(0)


def test_a_published_set_that_cannot_be_had_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setitem(hub.SETS, "aime25", hub.HubSet(str(tmp_path / "nothing"), "aime"))
    with pytest.raises(InputError, match=r"cannot load .*; give its problems as aime:FILE\.jsonl") as refused:
        find("aime25").test()
    assert "\n" not in str(refused.value)
    (tmp_path / "data.jsonl").write_text('{"problem": "p", "answer": "2^n"}\n')
    monkeypatch.setitem(hub.SETS, "aime25", hub.HubSet(str(tmp_path), "aime", "train"))
    with pytest.raises(InputError, match=r"'2\^n' is no integer"):
        find("aime25").test()


def test_answers_of_aime_in_files_may_be_written_with_degrees(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"problem": "p", "answer": "336^\\\\circ"}\n{"problem": "q", "answer": 25}\n')
    first, second = find(f"aime:{tmp_path / 'a.jsonl'}").test()
    assert (integer(first.reference), integer(second.reference)) == (336, 25)
    assert find(f"aime:{tmp_path / 'a.jsonl'}").correct(first, "\\boxed{336}")


@pytest.mark.parametrize("dialect", [*BY_DIALECT, "none"])
def test_published_settings_are_what_a_plan_has_unless_others_are_given(dialect, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"problem": "p", "answer": 1}\n')
    published = BY_DIALECT.get(dialect, OTHERS)
    plan = make_plan(f"aime:{tmp_path / 'a.jsonl'}", dialect)
    assert plan.prompt == published.prompt
    assert load(plan.prompt, dialect=dialect).name in names()
    sampling = plan.sampling
    assert (sampling.temperature, sampling.top_p, sampling.n) == (
        published.temperature, published.top_p, published.samples,
    )  # fmt: skip
    assert sampling.seed == 0
    other = make_plan(
        f"aime:{tmp_path / 'a.jsonl'}", dialect, sampling={"n": 3, "top_p": 0.5}, limits={"depth": 2}, prompt="none"
    )
    assert (other.sampling.n, other.sampling.top_p, other.sampling.temperature) == (3, 0.5, published.temperature)
    assert (other.prompt, other.limits.depth) == (None, 2)


def test_a_large_set_is_sampled_once_a_problem(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"problem": "p{n}", "answer": 1}}\n' for n in range(150)))
    assert make_plan(f"aime:{tmp_path / 'a.jsonl'}", "npr", problems=5).sampling.n == 1
