"""`python -m evals.replay`: its rows, files that cannot be used, and traces of this project as branches."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evals.replay import figures, run
from parallel_reason import InputError, TraceWriter
from parallel_reason.strategies import REPLAYABLE
from parallel_reason.trace import Fork, Span, Thread, Trace, tally


def write(path, problems):
    path.write_text(json.dumps(problems))
    return path


def problem(**changed):
    rng = random.Random(0)
    branches = [[["1", "2"][: rng.randint(0, 2)], rng.randint(500, 1500), rng.choice("12")] for _ in range(70)]
    return {"question": "?", "gold_answer": "1", "probe_freq": 500, "each_branch": branches} | changed


def rows(capsys, file, **options):
    capsys.readouterr()
    run(file, as_json=True, workers=1, **options)
    return json.loads(capsys.readouterr().out)


def test_rows_have_all_strategies_and_all_figures(capsys, tmp_path):
    every = rows(capsys, write(tmp_path / "runs.json", [problem(), problem()]), resamplings=3)
    assert [row["strategy"] for row in every] == list(REPLAYABLE)
    for row in every:
        assert row["accuracy_over_problems"][0] <= row["accuracy"] <= row["accuracy_over_problems"][1]
        assert 0 < row["sequential_tokens"] <= row["total_tokens"]
        assert (row["resamplings"], row["problems"]) == (3, 2)


def test_a_seed_gives_the_same_rows_and_a_budget_holds(capsys, tmp_path):
    file = write(tmp_path / "runs.json", [problem()])
    one, other = (rows(capsys, file, resamplings=4, seed=5, strategy=["esc:n=16"]) for _ in range(2))
    assert one == other
    (row,) = rows(capsys, file, resamplings=4, strategy=["sc:n=16"], total_tokens=4000, critical_path=400)
    assert row["total_tokens"] <= 4000
    assert row["sequential_tokens"] <= 400


def test_figures_are_means_and_percentiles_of_the_runs():
    runs = np.random.default_rng(1).integers(0, 2, size=(50, 8, 3)).astype(float)
    row = figures("x", runs)
    passes = [float(np.mean(one[:, 0])) for one in runs]
    assert row["accuracy"] == pytest.approx(np.mean(passes))
    assert row["accuracy_standard_error"] == pytest.approx(np.std(passes, ddof=1) / 50**0.5)
    assert row["accuracy_by_problem"] == pytest.approx([runs[:, place, 0].mean() for place in range(8)])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("[]", "has no problems"),
        ('{"question": 1}', "at the whole file: Input should be a valid list"),
        (json.dumps([problem(), problem(each_branch=[[["1"], "long", "1"]])]), "at 1.each_branch.0.1"),
        (json.dumps([problem(each_branch=[])]), "at 0.each_branch"),
        (json.dumps([problem(probe_freq=0)]), "at 0.probe_freq: Input should be greater than or equal to 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, content, said):
    file = tmp_path / "runs.json"
    file.write_text(content)
    with pytest.raises(InputError) as error:
        run(file, workers=1, resamplings=1)
    assert said in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_asked_for_is_checked_before_anything_runs(tmp_path):
    file = write(tmp_path / "runs.json", [problem()])
    with pytest.raises(InputError, match="needs a model; on recorded branches there is single"):
        run(file, strategy=["leap"])
    with pytest.raises(InputError, match="--answers nice: there is any, readable, aime"):
        run(file, answers="nice")
    called = subprocess.run(
        [sys.executable, "-m", "evals.replay", tmp_path / "none.json"],
        cwd=Path(__file__).parents[1], capture_output=True, text=True,
    )  # fmt: skip
    assert called.returncode == 1
    assert called.stderr == f"error: {tmp_path / 'none.json'}: No such file or directory\n"


def trace(task, sample, tokens, answer):
    threads = [Thread(label="0", spans=[Span(ids=[1] * tokens, origin="sampled")], status="finished")]
    return Trace(id=f"{task}{sample}", task=task, sample=sample, prompt="p", dialect="none", model="m",
                 threads=threads, answer=answer, ledger=tally(threads))  # fmt: skip


def test_traces_of_one_thread_are_branches(capsys, tmp_path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"problem": "p", "answer": 7}\n{"problem": "q", "answer": 8}\n')
    with TraceWriter(tmp_path / "traces.jsonl") as writer:
        for sample, (tokens, answer) in enumerate([(10, "7"), (20, "007"), (30, "9")]):
            writer.write(trace("p", sample, tokens, answer))
        writer.write(trace("q", 0, 40, None))
    (row,) = rows(capsys, tmp_path / "traces.jsonl", task=f"aime:{problems}", strategy=["sc"], resamplings=2)
    assert row["accuracy_by_problem"] == [1.0, 0.0]  # 7 and 007 are one answer
    assert (row["sequential_tokens"], row["total_tokens"]) == (35, 50)


def forked(sample, tokens, children, answer):
    """A trace whose root samples, forks children, waits for them, and samples one token more."""
    spans = [Span(ids=[1] * tokens, origin="sampled"), Span(ids=[1], origin="sampled")]
    fork = Fork(at=1, join_rule="message", children=list(range(1, len(children) + 1)))
    threads = [Thread(label="0", spans=spans, forks=[fork] if children else [], status="finished")]
    for number, length in enumerate(children):
        span = Span(ids=[1] * length, origin="sampled")
        threads.append(Thread(label=f"0.{number}", parent=0, spans=[span], status="finished"))
    return Trace(id=f"p{sample}", task="p", sample=sample, prompt="p", dialect="none", model="m",
                 threads=threads, answer=answer, ledger=tally(threads))  # fmt: skip


def test_of_a_trace_that_forks_all_threads_are_charged_and_its_critical_path_is_its_length(capsys, tmp_path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"problem": "p", "answer": 7}\n')
    with TraceWriter(tmp_path / "traces.jsonl") as writer:
        writer.write(forked(0, 2, [3, 1], "7"))  # 7 tokens, 6 of them one after another
        writer.write(forked(1, 4, [5, 5, 5], "8"))  # 20, and 10
        writer.write(forked(2, 8, [], "9"))  # 9
    command = {"task": f"aime:{problems}", "resamplings": 6}
    every, first = rows(capsys, tmp_path / "traces.jsonl", strategy=["sc:n=3", "shortest:k=3"], **command)
    assert (every["sequential_tokens"], every["total_tokens"]) == (10, 7 + 20 + 9)
    assert first["accuracy"] == 1.0
    assert (first["sequential_tokens"], first["total_tokens"]) == (6, 7 + (4 + 2 * 3) + 6)


def test_the_frontier_is_drawn_and_the_most_cautious_setting_chosen(capsys, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "docs"))
    import draw_strategies

    monkeypatch.setattr(draw_strategies, "GRID", [one for one in draw_strategies.GRID if one.n == 8][-3:])
    file = write(tmp_path / "runs.json", [problem(), problem(gold_answer="2")])
    draw_strategies.run(file, file, resamplings=2, out=tmp_path / "drawn.svg")
    assert "chosen: n=8 threshold=0.99 longest=40000" in capsys.readouterr().out
    assert (tmp_path / "drawn.svg").read_text().count("<circle") == 2 * 3
