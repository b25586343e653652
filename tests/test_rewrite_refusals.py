"""Samples that `rl.rewrite` refuses, each for its reason; the others go on."""

import pytest

from tests.rewriting import LINES, REPLIES, SAMPLE, build_model, but, good, kept, rejected, runner, stage_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path, model):
    return runner(tmp_path, model)


WRONG = LINES[8].replace("42", "41")
LAST = "S1: L1: a\nS2: L2-L7: b\nS3: L8: c"


@pytest.mark.parametrize(
    ("pipeline", "replies", "reason"),
    [
        ("multiverse", {"steps": "I cannot do that."}, "steps: names no step"),
        ("multiverse", {"steps": "x" * 5000}, "steps: does not end"),
        ("multiverse", {"steps": "S1: L1-L9: a"}, "steps: steps do not end with the last line"),
        ("multiverse", {"steps": "S1: L1-L3: a\nS2: L5-L8: b"}, "steps: steps leave lines out or share them"),
        ("multiverse", {"parts": "S9.1: L1-L1: a"}, "parts: parts are of no step"),
        ("multiverse", {"groups": "P1: [S2, S4]"}, "groups: a group is not of neighbouring steps in order"),
        ("multiverse", {"groups": "none"}, "has nothing to run in parallel"),
        ("multiverse", {"multiverse_goals": "1: a\nConclusion: b"},
         "multiverse_goals: has not one outline for each path"),
        ("multiverse", {"multiverse_passages": "</Path>"}, "multiverse_passages: has a tag of the dialect"),
        ("multiverse", {"multiverse_passages": "short"}, "multiverse_passages: lost more than half of a passage"),
        ("multiverse", {"multiverse_passages": "z" * 210}, "rewritten text is too far from the original"),
        ("threadweaver", {"threadweaver_check": "1: passed\n2: failed"}, "has no threads that are long enough"),
        ("threadweaver", {"threadweaver_edits": '[{"src": "5", "dest": "7"}]'},
         "threadweaver_edits: edits what is not in the thread exactly once"),
        ("threadweaver", {"threadweaver_edits": "[" * 100_000}, "threadweaver_edits: does not end"),
        ("threadweaver", {"threadweaver_edits": "[" * 1900 + "]"}, "threadweaver_edits: is no JSON list of edits"),
        ("threadweaver", {"threadweaver_outlines": "3: a"}, "threadweaver_outlines: has no outlines numbered from 1"),
        ("multiverse", {"steps": LAST, "groups": "P1: [S2, S3]", "multiverse_passages":
         lambda prompt: good(prompt).replace("42", "41")}, "rewritten text does not end in the right answer"),
    ],
)  # fmt: skip
def test_a_sample_is_rejected_for_a_reason_after_so_many_attempts(run, tmp_path, pipeline, replies, reason):
    summary, server = run(but(**replies), pipeline=pipeline, attempts=2)
    assert [(one["id"], one["reason"]) for one in rejected(tmp_path)] == [("a", reason)]
    assert summary["rejected"] == {reason: 1}
    assert kept(tmp_path) == []
    stage, _, refused = reason.partition(": ")
    asked = [stage_of(prompt) for prompt in server.prompts]
    if refused:
        assert summary["refused_replies"][reason] in (2, 4)
        assert asked[-1] == stage
        assert max(asked.count(name) for name in set(asked) - {"multiverse_passages"}) <= 2
    else:
        assert summary["refused_replies"] == {}


def test_a_second_attempt_may_be_better(run, tmp_path):
    said = iter(["Let me see.", f"<think>S1: L1-L9</think>```\n{REPLIES['steps']}\n```"])
    summary, _ = run(but(steps=lambda prompt: next(said)), attempts=2)
    assert summary["kept"] == 1
    assert summary["refused_replies"] == {"steps: names no step": 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": 41}, "reasoning does not end in the right answer"),
        ({"reasoning": "The answer is 42."}, "reasoning is a single line"),
        ({"reasoning": SAMPLE["reasoning"] + "\n</Path>\n\\boxed{42}"}, "reasoning has a tag of the dialect"),
        ({"reasoning": SAMPLE["reasoning"] + "</think>\\boxed{7}"}, "reasoning does not end in the right answer"),
        ({"problem": "x" * 30_000}, "cannot be asked"),
        ({"problem": "x" * 500_000}, "reasoning is too long"),
        ({"reasoning": SAMPLE["reasoning"].replace("small", "<eos>")}, "has a special token of the model"),
        ({"reasoning": "```\n" + SAMPLE["reasoning"]}, "is not well-formed"),
    ],
)
def test_a_sample_that_cannot_be_used_is_rejected_and_the_others_go_on(run, tmp_path, changes, reason):
    steps = REPLIES["steps"]
    fenced = "S1: L1-L2: a\nS2: L3-L5: b\nS3: L6-L8: c\nS4: L9: d"
    reply = but(steps=lambda prompt: fenced if "\nL9:" in prompt else steps)
    summary, _ = run(reply, SAMPLE | changes | {"id": "b"}, SAMPLE)
    assert [(one["id"], one["reason"]) for one in rejected(tmp_path)] == [("b", reason)]
    assert [trace.task for trace in kept(tmp_path)] == ["a"]
    assert summary["kept"] == 1


def test_samples_without_an_answer_are_not_graded_and_math_is_graded_by_value(run, tmp_path):
    unknown = {key: value for key, value in SAMPLE.items() if key != "answer"}
    samples = [unknown | {"id": "u"}, SAMPLE | {"id": "m", "answer": "84/2"}, SAMPLE | {"id": "w", "answer": "43"}]
    run(good, *samples, grading="math")
    assert sorted(trace.task for trace in kept(tmp_path)) == ["m", "u"]
    assert [one["id"] for one in rejected(tmp_path)] == ["w"]
