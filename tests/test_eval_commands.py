"""`eval`, `compare` and the scripts of `evals`, as people type them."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from parallel_reason.evaluation import read_run
from parallel_reason.tasks.countdown import held_out
from tests.commands import call_on_terminal, error_line

TORCH = ["--engine", "torch", "--problems", "3", "--tokens", "40"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs: in the model's dialect, and without forks; and what the first one printed."""
    from parallel_reason import ParallelLLM
    from parallel_reason.evaluation import evaluate, make_plan

    folder = tmp_path_factory.mktemp("runs")
    with ParallelLLM(engine="torch") as llm:
        evaluate(llm, make_plan("countdown", "spawn_join", problems=4), folder / "parallel")
        plan = make_plan("countdown", "none", problems="1:5", limits={"tokens": 200})
        evaluate(llm.with_dialect("none"), plan, folder / "sequential")
    return folder


def test_eval_prints_its_settings_and_every_figure(command, tmp_path):
    done = command("eval", "countdown", *TORCH, "--samples", "2", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for said in (
        "problems 0 to 2, 2 samples of each", "temperature=0.0, seed=0", "tokens=40", "the README's figures",
        "accuracy, avg@2", "pass@2", "cons@2", "critical path, tokens", "saved by sharing", "mean of traces",
    ):  # fmt: skip
        assert said in done.stdout, said
    again = command("eval", "countdown", *TORCH, "--samples", "2", "--out", tmp_path / "run", "--json")
    assert "has 6 of 6 samples" in again.stderr
    assert json.loads(again.stdout) == json.loads((tmp_path / "run" / "summary.json").read_text())
    other = command("eval", "countdown", *TORCH, "--samples", "3", "--out", tmp_path / "run")
    assert "sampling.n was 2, is 3" in error_line(other)


def test_the_figures_are_those_of_the_samples(command, runs):
    """Accuracy, critical path and acceleration of the embedded model, counted from the traces alone."""
    from parallel_reason import read_traces
    from parallel_reason.tasks.countdown import Problem, solves

    traces = list(read_traces(runs / "parallel" / "traces.jsonl"))
    found = json.loads((runs / "parallel" / "summary.json").read_text())
    assert [t.prompt for t in sorted(traces, key=lambda t: t.started_at)] == [str(problem) for problem in held_out(4)]
    assert found["accuracy"]["hits"] == sum(solves(t.answer, Problem.parse(t.prompt)) for t in traces)
    critical = [t.ledger.critical_path_tokens for t in traces]
    assert found["critical_path_tokens"] == {"mean": sum(critical) / 4, "largest": max(critical)}
    assert found["acceleration_of_sums"] == sum(t.ledger.sampled_tokens for t in traces) / sum(critical)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["chess"], "there is no task 'chess'"),
        (["reasoning_gym:chain_sum"], "give a model with --model"),
        (["aime:none.jsonl", "--model", "x/y"], "none.jsonl: No such file"),
        (["countdown", "--problems", "x"], "problems x: give a count"),
        (["countdown", "--temperature", "-1"], "--temperature -1.0"),
        (["countdown", "--dialect", "x"], "x"),
        (["countdown", "--samples", "0"], "--n 0"),
        (["countdown", "--strategy", "magic"], "there is no strategy 'magic'"),
        (["countdown", "--prompt", "x"], "unknown prompt 'x'"),
        (["countdown", "--engine", "torch", "--problems", "1", "--out", "/dev/null/x"], "cannot write /dev/null"),
    ],
)
def test_what_cannot_be_used_is_one_line(command, args, says):
    assert says in error_line(command("eval", *args))


def test_the_scripts_are_the_command(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["evals.countdown", *TORCH, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("evals.countdown", run_name="__main__")
    assert done.value.code == 0
    assert "accuracy, avg@1" in capfd.readouterr().out
    (tmp_path / "aime.jsonl").write_text('{"problem": "1,2,3,4=10", "answer": 7}\n')
    args = [str(tmp_path / "aime.jsonl"), "--engine", "torch", "--prompt", "none", "--tokens", "9", "--samples", "4"]
    monkeypatch.setattr(sys, "argv", ["evals.aime", *args, "--out", str(tmp_path / "aime")])
    with pytest.raises(SystemExit) as refused:
        runpy.run_module("evals.aime", run_name="__main__")
    assert refused.value.code == 1
    assert "give a model with --model" in capfd.readouterr().err
    monkeypatch.setattr(sys, "argv", ["evals.aime"])
    with pytest.raises(SystemExit, match="name a year"):
        runpy.run_module("evals.aime", run_name="__main__")


def test_compare_pairs_the_problems_of_two_runs(command, runs):
    done = command("compare", runs / "sequential", runs / "parallel")
    assert done.returncode == 0, done.stderr
    assert "dialect none" in done.stdout
    assert "critical path" in done.stdout
    assert "2 problems are in one of the runs only" in done.stderr
    found = json.loads(command("compare", runs / "sequential", runs / "parallel", "--json").stdout)
    first, second = (
        {sample.problem: sample for sample in read_run(runs / name)[1]} for name in ("sequential", "parallel")
    )
    both = first.keys() & second.keys()
    assert found["problems"] == len(both) == 3
    wanted = sum(second[key].correct - first[key].correct for key in both) / 3
    assert found["difference"] == pytest.approx(wanted)
    slower = [key for key in both if second[key].ledger.wall_s > first[key].ledger.wall_s]
    assert found["wall_s"]["worse"] == pytest.approx(len(slower) / 3)
    same = command("compare", runs / "parallel", runs / "parallel")
    assert "may be noise" in same.stdout


def test_compare_reads_what_is_left_of_a_damaged_run(command, runs, tmp_path):
    import shutil

    run = shutil.copytree(runs / "parallel", tmp_path / "run")
    lines = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    (run / "samples.jsonl").write_text(lines[0] + lines[0] + "{broken\n" + lines[1] + lines[2][:50])
    done = command("compare", run, runs / "parallel")
    assert done.returncode == 0
    said = done.stderr.splitlines()
    assert [f"line {n}: " in line for n, line in zip((3, 5), said, strict=False)] == [True, True]
    assert "1 samples are there twice" in said[2]
    assert "2 of 4 samples are missing" in said[3]
    (run / "samples.jsonl").write_text("")
    assert "has no sample that can be read" in error_line(command("compare", run, run))
    assert "no such folder of a run" in error_line(command("compare", tmp_path / "nothing", run))
    (run / "settings.json").write_text((run / "settings.json").read_text().replace('"countdown"', '"aime"', 1))
    (run / "samples.jsonl").write_text(lines[0])
    assert "compare runs of one task" in error_line(command("compare", run, runs / "parallel"))


def test_a_terminal_shows_how_far_it_is_and_the_accuracy_so_far(tmp_path):
    status, shown, _ = call_on_terminal("eval", "countdown", *TORCH, "--out", tmp_path / "run")
    assert status == 0
    assert "3/3" in shown
    assert "% right" in shown
    assert "left" in shown


def test_the_example_of_the_page_runs(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)
    ran = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.split()) == 5
    assert (tmp_path / "runs" / "parallel" / "summary.json").exists()
