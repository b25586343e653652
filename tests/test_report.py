"""The commands `show` and `report`: what they print, and what they say of files that are not as they should be."""

import json
import os
import re
import stat

import pytest

from parallel_reason.trace import aggregate
from parallel_reason.viewer import find_run
from tests.viewing import drawn, nasty, write

PROBLEM = "22,26,31,53=27"
ANSWER = "31-26=5,22*5=110,110-53=57"


def graded(answer, sample=0):
    trace = drawn("spawn_join")[0].model_copy(deep=True)
    return trace.model_copy(update={"id": f"{answer}/{sample}", "task": PROBLEM, "answer": answer, "sample": sample})


@pytest.fixture
def run(tmp_path):
    return write(tmp_path / "traces.jsonl", drawn("multiverse"))


def test_one_trace_is_drawn_with_a_lane_a_thread(run, command):
    trace = max(drawn("multiverse"), key=lambda trace: len(trace.threads))
    done = command("show", run, drawn("multiverse").index(trace), "--all", columns=100)
    assert done.returncode == 0, done.stderr
    plain = re.sub("\x1b\\[[0-9;]*m", "", done.stdout)
    for thread in trace.threads:
        assert re.search(rf"^\S\s+{re.escape(thread.label)} +{thread.tokens('sampled')} ", plain, re.M), thread.label
    assert max(map(len, plain.splitlines()[1 : len(trace.threads)])) <= 100
    assert "critical path" in plain


def test_without_a_number_traces_are_listed_and_their_text_is_printed_on_demand(run, command):
    done = command("show", run)
    assert len(re.findall(r"^ *\d+ ", done.stdout, re.M)) == len(drawn("multiverse"))
    done = command("show", run, 0, "--text")
    assert "[0]" in done.stdout
    assert drawn("multiverse")[0].text.split("<")[0].strip() in done.stdout
    assert "no tokenizer" in done.stderr  # the scripted engine's model is no folder


def test_nothing_that_a_model_wrote_reaches_the_terminal_as_control_characters(tmp_path, command):
    file = write(tmp_path / "nasty.jsonl", [nasty("\x1b]0;owned\x07 [bold]\r\n")])
    for args in (["show", file], ["show", file, "0", "--text"], ["report", file, "--out", tmp_path / "r.html"]):
        done = command(*args, columns=80)
        assert done.returncode == 0, done.stderr
        assert "\x1b]" not in done.stdout + done.stderr
        assert "\x07" not in done.stdout + done.stderr


def test_accuracy_comes_from_the_verdicts_of_an_evaluation_or_from_a_task(tmp_path, command):
    from parallel_reason.cli.report import figures
    from parallel_reason.cli.traces import judge_of
    from parallel_reason.evaluation.intervals import clustered
    from parallel_reason.tasks import find
    from parallel_reason.viewer.page import Counted

    traces = [graded("right"), graded("wrong", 1), graded("unknown", 2)]
    write(tmp_path / "traces.jsonl", traces)
    rows = [{"trace": trace.id, "correct": trace.answer == "right"} for trace in traces[:2]]
    torn = '{"trace": "unkno'
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)
    found = find_run(tmp_path)
    assert [sample.correct for sample in found.samples()] == [True, False, None]
    assert len(found.notes) == 1
    assert "1 of its lines" in found.notes[0]
    counted = [Counted("p", s.correct, s.trace.ledger) for s in found.samples() if s.correct is not None]
    (accuracy,) = (figure for figure in figures(counted) if figure.name == "accuracy")
    assert (accuracy.value, (accuracy.low, accuracy.high)) == (0.5, clustered([1], [2]))
    (paths,) = (figure for figure in figures(counted) if figure.name == "acceleration of sums")
    assert paths.value == aggregate(one.ledger for one in counted).acceleration_of_sums
    task = find("countdown")
    problem = task.test(1)[0]
    judge = judge_of("countdown")
    assert judge(graded("no").model_copy(update={"task": problem.key})) is False
    assert judge(graded("no").model_copy(update={"task": "of another set", "prompt": "no problem"})) is None


def test_lines_that_are_no_traces_are_named_and_the_rest_is_kept(tmp_path, command):
    good = drawn("spawn_join")
    lines = [
        good[0].to_json(),
        "{broken",
        good[0].to_json(),
        '{"version": 9}',
        good[1].to_json(),
        good[2].to_json()[:50],
    ]
    file = tmp_path / "traces.jsonl"
    file.write_text("\n".join(lines))
    done = command("report", file, "--out", tmp_path / "r.html")
    assert done.returncode == 0, done.stderr
    assert "2 traces" in done.stdout
    broken, twice = done.stderr.splitlines()[-2:]
    assert "3 lines left out: line 2: " in broken
    assert "line 4: " in broken
    assert "1 trace left out: the id was there before" in twice


def test_what_cannot_be_reported_is_one_line_and_leaves_no_file(tmp_path, command):
    write(tmp_path / "good.jsonl", drawn("spawn_join")[:1])
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "folder").mkdir()
    cases = {
        "missing": "no run", "empty.jsonl": "it is empty", "other.jsonl": "not a trace of version",
        "folder": "no traces.jsonl",
    }  # fmt: skip
    for name, said in cases.items():
        done = command("report", tmp_path / name, "--out", tmp_path / "r.html")
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    out = tmp_path / "good.jsonl" / "r.html"
    done = command("report", tmp_path / "good.jsonl", "--out", out)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"cannot write {out}" in done.stderr
    assert command("report").returncode == 2
    done = command("show", tmp_path / "good.jsonl", 3)
    assert done.stderr == f"error: {tmp_path / 'good.jsonl'} has traces 0 to 0, not 3\n"
    assert sorted(os.listdir(tmp_path)) == ["empty.jsonl", "folder", "good.jsonl", "other.jsonl"]


def test_a_report_that_breaks_leaves_the_old_one(tmp_path, command, monkeypatch):
    file, out = write(tmp_path / "good.jsonl", drawn("spawn_join")), tmp_path / "r.html"
    out.write_text("old")
    monkeypatch.setattr("parallel_reason.viewer.page.CHUNK", 1)
    command("report", file, tmp_path / "gone.jsonl", "--out", out)
    assert out.read_text() == "old"
    assert stat.S_ISREG(out.stat().st_mode)


def test_without_plotly_a_report_says_what_to_install(tmp_path, command, monkeypatch):
    from importlib.util import find_spec

    file = write(tmp_path / "good.jsonl", drawn("spawn_join"))
    monkeypatch.setattr(
        "parallel_reason.viewer.page.find_spec", lambda name: None if name == "plotly" else find_spec(name)
    )
    done = command("report", file, "--out", tmp_path / "r.html")
    assert (done.returncode, done.stderr) == (1, "error: charts need plotly: pip install 'parallel-reason[report]'\n")
    assert command("show", file, 0, "--html", tmp_path / "t.html").returncode == 0


def test_a_notebook_gets_a_page_in_a_frame_and_no_markup_of_the_model():
    import html
    import re

    trace = nasty()
    shown = trace._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert 'sandbox="allow-scripts"' in shown
    (page,) = re.findall(r'srcdoc="([^"]*)"', shown)
    assert "document.title='owned'" not in html.unescape(page).split("<style>")[1]
