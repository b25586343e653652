"""Runs in folders: what they keep, how they go on after a kill, and what they make of files that are wrong."""

import gc
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import weakref
from collections import Counter
from pathlib import Path

import pytest

from parallel_reason import InputError, ParallelLLM, read_traces
from parallel_reason.evaluation import evaluate, make_plan, read_run
from parallel_reason.evaluation.run_folder import RunFolder
from parallel_reason.tasks.countdown import Problem, solves

COMMAND = [
    sys.executable,
    "-m",
    "evals.countdown",
    "--engine",
    "torch",
    "--problems",
    "6",
    "--samples",
    "4",
    "--tokens",
    "150",
]
SHORT = {"tokens": 30}


@pytest.fixture(scope="module")
def llm():
    with ParallelLLM(engine="torch") as llm:
        yield llm


def plan(problems=3, n=2, **options):
    return make_plan("countdown", "spawn_join", problems=problems, sampling={"n": n}, limits=SHORT, **options)


@pytest.fixture(scope="module")
def finished(llm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "run"
    evaluate(llm, plan(), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def keys(folder):
    """Problem and sample of every trace in a folder, and of every sample."""
    traces = Counter((trace.task, trace.sample) for trace in read_traces(folder / "traces.jsonl"))
    samples = Counter(
        (sample["problem"], sample["sample"])
        for sample in map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    )
    return traces, samples


def every(problems=3, n=2):
    return Counter((problem.key, number) for problem in plan(problems).problems for number in range(n))


def again(llm, folder, **options):
    """Run it again; the samples that were run, and the notes."""
    ran, notes = [], []
    evaluate(llm, plan(**options), folder, on_sample=ran.append, on_note=notes.append)
    return [sample.key for sample in ran], notes


def test_a_run_has_every_sample_once_with_its_whole_trace_and_verdict(llm, tmp_path):
    full = make_plan("countdown", "spawn_join", problems="5:9", sampling={"temperature": 1.0, "n": 2})
    found = evaluate(llm, full, tmp_path / "run")
    traces = {trace.id: trace for trace in read_traces(tmp_path / "run" / "traces.jsonl")}
    settings, samples, notes = read_run(tmp_path / "run")
    assert notes == []
    assert Counter(sample.key for sample in samples) == Counter((p.key, n) for p in full.problems for n in (0, 1))
    for sample in samples:
        trace = traces[sample.trace]
        assert (sample.problem, sample.sample) == (trace.task, trace.sample)
        assert sample.correct == solves(trace.answer, Problem.parse(trace.prompt))
        assert sample.ledger == trace.ledger
    assert found.accuracy.hits == sum(sample.correct for sample in samples) > 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == json.loads(found.model_dump_json())
    assert (settings.first_problem, settings.problems, settings.sampling.n) == (5, 4, 2)


def test_a_finished_run_is_not_run_again(llm, run):
    traces, samples = (run / "traces.jsonl").read_bytes(), (run / "samples.jsonl").read_text().splitlines()
    assert again(llm, run) == ([], [])
    assert (run / "traces.jsonl").read_bytes() == traces
    assert sorted((run / "samples.jsonl").read_text().splitlines()) == sorted(samples)


def test_torn_broken_failed_and_duplicate_records_cost_only_themselves(llm, run):
    lines = (run / "traces.jsonl").read_bytes().splitlines(keepends=True)
    failed = json.loads(lines[1])
    failed["threads"][0]["status"] = "failed"
    other = json.loads(lines[2]) | {"version": 9}
    written = [lines[0], json.dumps(failed).encode() + b"\n", json.dumps(other).encode() + b"\n", b"{\x00]\n", lines[0]]
    (run / "traces.jsonl").write_bytes(b"".join([*written, lines[3], lines[4], lines[5][:200]]))
    ran, notes = again(llm, run)
    wanted = {tuple(json.loads(line)[field] for field in ("task", "sample")) for line in (lines[1], lines[2], lines[5])}
    assert set(ran) == wanted
    assert len(ran) == 3
    assert keys(run) == (every(), every())
    assert [f", line {number}: " in note for number, note in zip((3, 4), notes[:2], strict=True)] == [True, True]
    assert "2 traces" in notes[2]
    assert (run / "traces.broken.jsonl").read_bytes() == written[2] + written[3]
    assert all("\n" not in note for note in notes)


@pytest.mark.parametrize("left", ["nothing", "torn", "other"])
def test_samples_are_made_again_from_the_traces(llm, run, left):
    before = sorted((run / "samples.jsonl").read_text().splitlines())
    first, *rest = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    unknown = first.replace(json.loads(first)["trace"], "of another run")
    wrote = {"nothing": "", "torn": first + rest[0][:99], "other": unknown + "junk\n"}[left]
    (run / "samples.jsonl").write_text(wrote)
    assert again(llm, run) == ([], [])
    assert sorted((run / "samples.jsonl").read_text().splitlines()) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n": 3}, "sampling.n was 2, is 3"),
        ({"problems": 2}, "problems was 3, is 2"),
        ({"problems": "1:4"}, "first_problem was 0, is 1"),
        ({"prompt": "spawn_join"}, "prompt was None, is 'spawn_join'"),
        ({"engine_options": {"context": 99}}, "engine_options.context was None, is 99"),
    ],
)
def test_another_runs_settings_are_refused_by_the_first_difference(llm, run, change, says):
    before = (run / "traces.jsonl").read_bytes()
    with pytest.raises(InputError, match=f"has a run of other settings: {says}") as refused:
        again(llm, run, **change)
    assert "\n" not in str(refused.value)
    assert (run / "traces.jsonl").read_bytes() == before
    with pytest.raises(InputError, match="dialect was 'spawn_join', is 'none'"):
        evaluate(llm.with_dialect("none"), plan(), run)


def test_keys_of_servers_are_written_nowhere(llm, tmp_path):
    evaluate(llm, plan(problems=1, n=1, engine_options={"api_key": "hush", "context": 99}), tmp_path / "run")
    written = b"".join(file.read_bytes() for file in (tmp_path / "run").iterdir())
    assert b"hush" not in written
    assert b'"context": 99' in written


def test_an_edited_file_of_problems_is_another_run(llm, tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"problem": "1,2,3,4=10", "answer": 7}\n')
    options = {"prompt": "none", "limits": SHORT, "sampling": {"n": 1}}
    evaluate(llm, make_plan(f"aime:{file}", "spawn_join", **options), tmp_path / "run")
    file.write_text('{"problem": "1,2,3,4=10", "answer": 8}\n')
    with pytest.raises(InputError, match="content was"):
        evaluate(llm, make_plan(f"aime:{file}", "spawn_join", **options), tmp_path / "run")


def test_problems_there_twice_count_once_and_one_that_cannot_be_asked_costs_only_itself(llm, tmp_path):
    file, notes = tmp_path / "p.jsonl", []
    texts = ["1,2,3,4=10", "1,2,3,4=10", "what is 7?", "5,6,7,8=20"]
    file.write_text("".join(json.dumps({"problem": text, "answer": 7}) + "\n" for text in texts))
    options = {"prompt": "none", "limits": SHORT, "sampling": {"n": 1}}
    asked = make_plan(f"aime:{file}", "spawn_join", **options)
    assert (len(asked.problems), asked.twice) == (3, 1)
    evaluate(llm, asked, tmp_path / "run", on_note=notes.append)
    assert set(keys(tmp_path / "run")[0]) == {("1,2,3,4=10", 0), ("5,6,7,8=20", 0)}
    assert len(notes) == 1
    assert "'what is 7?' was not run: " in notes[0]
    assert "1 of 3 samples are missing" in read_run(tmp_path / "run")[2][0]
    file.write_text('{"problem": "a", "answer": 1}\n{"problem": "a", "answer": 2}\n')
    with pytest.raises(InputError, match="'a' is there twice, with the answers '1' and '2'"):
        make_plan(f"aime:{file}", "spawn_join")
    file.write_text('{"problem": "all bad", "answer": 1}\n')
    with pytest.raises(InputError, match="no token for a part of the prompt"):
        evaluate(llm, make_plan(f"aime:{file}", "spawn_join", **options), tmp_path / "other")


@pytest.mark.parametrize("given", ["x", "-1", "5:5", "9:3", "1:2:3", "1.5", "²"])
def test_a_range_that_is_none_is_refused(given):
    with pytest.raises(InputError, match=f"problems {given}: "):
        make_plan("countdown", "spawn_join", problems=given)


def test_a_range_is_counted_from_0_and_without_the_last(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text("".join(f'{{"problem": "p{n}", "answer": {n}}}\n' for n in range(6)))
    for given, wanted in ((2, "01"), ("2", "01"), ("2:4", "23"), ("4:", "45"), (None, "012345")):
        plan = make_plan(f"aime:{file}", "none", problems=given)
        assert [problem.text for problem in plan.problems] == [f"p{n}" for n in wanted]
    with pytest.raises(InputError, match=r"there is none of aime:.* from number 6 on"):
        make_plan(f"aime:{file}", "none", problems="6:")
    with pytest.raises(InputError, match="7 problems were asked for"):
        make_plan(f"aime:{file}", "none", problems=7)


def test_a_strategy_is_run_in_place_of_the_dialect_and_graded_by_the_same_verifier(llm, tmp_path):
    """Paths of it are children of one thread; its budget bounds what every trace samples."""
    sequential, options = llm.with_dialect("none"), {"problems": 2, "sampling": {"temperature": 1.0}}
    of_strategy = make_plan("countdown", "none", strategy="sc:n=3", budget={"total_tokens": 60}, **options)
    found = evaluate(sequential, of_strategy, tmp_path / "run")
    traces = list(read_traces(tmp_path / "run" / "traces.jsonl"))
    assert [len(trace.threads) for trace in traces] == [4, 4]
    assert max(trace.ledger.sampled_tokens for trace in traces) <= 60
    assert found.acceleration_of_sums == pytest.approx(3, abs=0.2)
    settings = read_run(tmp_path / "run")[0]
    assert (settings.strategy, settings.budget.total_tokens) == ("sc:n=3", 60)
    for change, says in (({"strategy": "sc:n=2"}, "strategy was 'sc:n=3'"), ({"strategy": None}, "strategy was")):
        given = {"strategy": "sc:n=3", "budget": {"total_tokens": 60}, **options, **change}
        given["budget"] = given["budget"] if given["strategy"] else None
        with pytest.raises(InputError, match=says):
            evaluate(sequential, make_plan("countdown", "none", **given), tmp_path / "run")
    with pytest.raises(InputError, match="a budget is of a strategy"):
        make_plan("countdown", "none", budget={"total_tokens": 60})


def test_a_folder_that_cannot_be_used_is_one_line(llm, run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file"):
        evaluate(llm, plan(), tmp_path / "file" / "run")
    with (
        RunFolder(run, plan().settings(llm.session), lambda trace: None),
        pytest.raises(InputError, match="another process"),
    ):
        evaluate(llm, plan(), run)
    (run / "settings.json").unlink()
    with pytest.raises(InputError, match=r"has traces and no settings\.json"):
        evaluate(llm, plan(), run)
    for text, says in (
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"version": 2}', "is of version 2"),
        ("é" * 3, "damaged"),
    ):
        (run / "settings.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=says) as refused:
            evaluate(llm, plan(), run)
        assert "\n" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(stat.S_IRUSR | stat.S_IXUSR)
    code = (
        "import sys\nfrom pathlib import Path\nfrom parallel_reason import InputError\n"
        "from parallel_reason.evaluation.run_folder import RunFolder\n"
        "try:\n    RunFolder(Path(sys.argv[1]), None, None)\n"
        "except InputError as error:\n    print(error)\n"
    )
    drop = [] if os.geteuid() else ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all"]
    done = subprocess.run(
        [*drop, sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"cannot write {tmp_path}/run/.lock: Permission denied\n", done.stderr


def test_a_full_disk_ends_the_run_and_loses_nothing_that_was_written(llm, tmp_path, monkeypatch):
    """The kernel's own error: the file may not grow beyond a limit."""
    import resource

    folder, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    evaluate(llm, plan(problems=1, n=1), tmp_path / "small")
    size = (tmp_path / "small" / "traces.jsonl").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * size, before[1]))
        with pytest.raises(
            InputError, match=r"cannot write into .*run: File too large; what was written before is kept"
        ):
            evaluate(llm, plan(problems=5, n=2), folder, concurrency=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    written = sum(keys(folder)[0].values())
    assert 1 <= written <= 4
    ran, _ = again(llm, folder, problems=5)
    assert len(ran) == 10 - written
    assert keys(folder) == (every(5), every(5))
    assert llm.kv_is_free()


def test_an_answer_of_10_mb_is_wrong_and_kept(finished, tmp_path):
    from parallel_reason.evaluation.sample import sample_of

    trace = next(read_traces(finished / "traces.jsonl"))
    for task, problem in ((plan().task, plan().problems[0]), (make_aime(tmp_path), make_aime(tmp_path).test()[0])):
        for text in ("7" * 10_000_000, "{" * 10_000_000, "\\boxed{" * 1_000_000, "1+1=2," * 2_000_000):
            found = sample_of(trace.model_copy(update={"answer": text}), task, problem)
            assert not found.correct
            assert len(found.model_dump_json()) < 4000


def make_aime(folder):
    from parallel_reason.tasks import find

    (folder / "aime.jsonl").write_text('{"problem": "a", "answer": 7}\n')
    return find(f"aime:{folder / 'aime.jsonl'}")


def test_traces_are_not_held_in_memory(llm, tmp_path, monkeypatch):
    """No more of them are alive during a run than are in flight and being graded."""
    seen, most, add = [], [], RunFolder.add_trace

    def add_trace(folder, trace):
        seen.append(weakref.ref(trace))
        add(folder, trace)

    def alive():
        gc.collect()
        return sum(each() is not None for each in seen)

    monkeypatch.setattr(RunFolder, "add_trace", add_trace)
    evaluate(llm, plan(problems=12, n=1), tmp_path / "run", concurrency=2, on_sample=lambda _: most.append(alive()))
    assert len(most) == 12
    assert max(most) <= 6


def killed_once(command, folder, samples):
    """Kill a run as soon as its folder has so many samples, or more; what was whole in it by then."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file, deadline = folder / "samples.jsonl", time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if file.exists() and file.read_bytes().count(b"\n") >= samples:
            break
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    lines = (folder / "traces.jsonl").read_bytes().splitlines(keepends=True)
    return {line for line in lines if line.endswith(b"\n")}


def test_a_run_that_is_killed_again_and_again_has_every_sample_once(tmp_path):
    folder, kept = tmp_path / "run", set()
    command = [sys.executable, "-m", "tests.scripted_evaluation", str(folder), "8", "5", "0.004"]
    for samples in (1, 7, 14, 22, 31):
        now = killed_once(command, folder, samples)
        assert kept <= now
        kept = now
    assert 31 <= len(kept) < 40
    subprocess.run(command, check=True)
    assert keys(folder) == (every(8, 5), every(8, 5))
    assert kept <= set((folder / "traces.jsonl").read_bytes().splitlines(keepends=True))
    assert json.loads((folder / "summary.json").read_text())["samples"] == 40


def test_the_command_goes_on_after_a_kill_and_refuses_other_settings(tmp_path):
    folder = tmp_path / "run"
    command = [*COMMAND, "--out", str(folder), "--temperature", "1", "--concurrency", "2"]
    kept = killed_once(command, folder, 2)
    assert 2 <= len(kept) < 24

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "samples; the rest is run" in done.stderr
    assert keys(folder) == (every(6, 4), every(6, 4))
    assert kept <= set((folder / "traces.jsonl").read_bytes().splitlines(keepends=True))

    other = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert other.stderr.startswith(f"error: {folder} has a run of other settings: sampling.seed was 0, is 1; ")
    assert other.stderr.count("\n") == 1
