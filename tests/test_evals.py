"""The Countdown evaluation, on the torch engine: its figures, and what it keeps of an earlier run."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from evals.countdown import evaluate, report
from parallel_reason import InputError, Ledger, Limits, ParallelLLM, SamplingParams, read_traces
from parallel_reason.tasks.countdown import held_out

COMMAND = [sys.executable, "-m", "evals.countdown", "--engine", "torch", "--problems", "3", "--out"]
PROBLEMS = held_out(3)
GREEDY = SamplingParams(seed=0)
SHORT = Limits(tokens=30)


@pytest.fixture(scope="module")
def llm():
    with ParallelLLM(engine="torch") as llm:
        yield llm


@pytest.fixture(scope="module")
def finished(llm, tmp_path_factory):
    """A file with the traces of all problems."""
    path = tmp_path_factory.mktemp("eval") / "traces.jsonl"
    evaluate(llm, PROBLEMS, GREEDY, SHORT, path)
    return path


@pytest.fixture
def file(finished, tmp_path):
    return shutil.copy(finished, tmp_path / "traces.jsonl")


def write(file, traces):
    file.write_text("".join(trace.to_json() + "\n" for trace in traces))


def ids(traces):
    return [trace.id for trace in traces]


def test_finished_traces_are_kept_and_not_run_again(llm, file):
    before, run = file.read_bytes(), []
    traces = evaluate(llm, PROBLEMS, GREEDY, SHORT, file, run.append)
    assert (run, file.read_bytes()) == ([], before)
    assert [trace.prompt for trace in traces] == [str(problem) for problem in PROBLEMS]
    assert sorted(ids(traces)) == sorted(ids(read_traces(file)))


def test_failed_and_cancelled_traces_run_again(llm, file):
    before = list(read_traces(file))
    before[0].root.status, before[1].root.status = "failed", "cancelled"
    write(file, before)
    run = []
    traces = evaluate(llm, PROBLEMS, GREEDY, SHORT, file, run.append)
    assert {trace.prompt for trace in run} == {trace.prompt for trace in before[:2]}
    assert {trace.status for trace in traces} == {"length"}
    assert sorted(ids(read_traces(file))) == sorted(ids([before[2], *run]))


def test_a_torn_last_line_is_dropped_and_its_problem_run_again(llm, file):
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][: len(lines[2]) // 2])
    run = []
    evaluate(llm, PROBLEMS, GREEDY, SHORT, file, run.append)
    assert len(run) == 1
    assert file.read_bytes().splitlines(keepends=True)[:2] == lines[:2]
    assert len(list(read_traces(file))) == 3


@pytest.mark.parametrize(
    ("sampling", "limits", "says"),
    [
        (
            SamplingParams(seed=0, temperature=1.0),
            SHORT,
            r"sampling=\{'temperature': 0.0\}, not \{'temperature': 1.0\}",
        ),
        (SamplingParams(seed=1), SHORT, r"sampling=\{'seed': 0\}, not \{'seed': 1\}"),
        (GREEDY, Limits(tokens=31), r"limits=\{'tokens': 30\}, not \{'tokens': 31\}"),
    ],
)
def test_traces_of_other_sampling_or_limits_are_refused_by_name(llm, file, sampling, limits, says):
    before = file.read_bytes()
    with pytest.raises(InputError, match=says):
        evaluate(llm, PROBLEMS, sampling, limits, file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["model", "engine", "dialect", "dialect_options"])
def test_traces_of_another_model_engine_or_dialect_are_refused_by_name(llm, file, name):
    other = {"join_on": "first"} if name == "dialect_options" else "other"
    write(file, [trace.model_copy(update={name: other}) for trace in read_traces(file)])
    before = file.read_bytes()
    with pytest.raises(InputError, match=f"{file} was made with {name}=.*{other}, not "):
        evaluate(llm, PROBLEMS, GREEDY, SHORT, file)
    assert file.read_bytes() == before


def test_a_run_that_was_killed_is_resumed_by_the_command(tmp_path):
    file = tmp_path / "traces.jsonl"
    process = subprocess.Popen([*COMMAND, str(file)], start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None and not (file.exists() and b"\n" in file.read_bytes()):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = file.read_bytes()[: file.read_bytes().rfind(b"\n") + 1]
    file.write_bytes(kept + kept[:1000])
    assert 1 <= kept.count(b"\n") < 3

    refused = subprocess.run([*COMMAND, str(file)], capture_output=True, text=True)
    assert refused.returncode == 1
    assert f"{file} is there already: --resume" in refused.stderr

    done = subprocess.run([*COMMAND, str(file), "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes().startswith(kept)
    assert sorted(trace.task for trace in read_traces(file)) == sorted(str(problem) for problem in PROBLEMS)


def test_a_report_has_both_accelerations_and_says_what_it_does_not_know(finished):
    traces = list(read_traces(finished))
    problems = [next(p for p in PROBLEMS if str(p) == trace.prompt) for trace in traces]
    for trace, sampled, critical, forks in zip(traces, (400, 300, 100), (100, 150, 100), (1, 2, 0), strict=True):
        trace.ledger = Ledger(
            sampled_tokens=sampled, critical_path_tokens=critical, acceleration=sampled / critical, forks=forks,
            prefilled_tokens=100, cached_tokens=75,
        )  # fmt: skip
    figures = dict(report(problems, traces))
    assert figures["acceleration, of sums"] == "2.29"  # 800 / 350
    assert figures["acceleration, mean"] == "2.33"  # (4 + 2 + 1) / 3
    assert figures["with a fork"].endswith("(2 of 3)")
    assert figures["failed"].endswith("(0 of 3)")
    assert figures["context from cache"] == "75.0%"
    assert figures["longest context, tokens"].startswith("39.0 ")

    traces[0].ledger.cached_tokens = None
    traces[1].root.status = "failed"
    figures = dict(report(problems, traces))
    assert figures["context from cache"] == "unknown"
    assert figures["failed"].endswith("(1 of 3)")
