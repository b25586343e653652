"""The command, as a person or a script calls it."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from parallel_reason import __version__, read_traces
from parallel_reason.countdown import held_out

PROBLEMS = [str(problem) for problem in held_out(40)]
COMMAND = [sys.executable, "-c", "from parallel_reason.cli.app import main; main()"]


def call(*args, text="", **options):
    return subprocess.run(
        [*COMMAND, *map(str, args)], input=text, capture_output=True, text=True, timeout=300, **options
    )


def test_version():
    assert call("--version").stdout == f"parallel-reason {__version__}\n"


def test_help_teaches():
    assert "doctor" in call("--help").stdout
    assert "22,26,31,53=27" in call("generate", "--help").stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["generate", "1,2=3", "--model", "/no/model"], "no model '/no/model'"),
        (["generate", "1,2=3", "--dialect", "morse"], "unknown dialect 'morse'"),
        (["generate", "1,2=3", "--engine", "sglang"], "unknown engine 'sglang'"),
        (["generate", "1,2=3", "-o", "join_on"], "--option join_on: write it as name=value"),
        (["generate", "1,2=3", "--threads", "0"], "--threads 0"),
        (["generate", "1,2=3", "--temperature", "-1"], "--temperature -1.0"),
        (["generate", "1,2=3", "--deadline-s", "0"], "--deadline-s 0.0"),
        (["generate", "1,2=3", "--file", "x"], "not both"),
        (["generate", "--file", "/no/file"], "cannot read /no/file"),
        (["generate"], "no prompt"),
        (["generate", "1,2=3", "--out", "/no/folder/x.jsonl"], "cannot write /no/folder/x.jsonl"),
        (["validate", "/no/file", "--dialect", "spawn_join"], "cannot read /no/file: No such file"),
        (["validate", __file__, "--dialect", "spawn_join", "--model", "/no/model"], "no tokenizer in '/no/model'"),
    ],
)
def test_bad_input_is_one_line_and_status_1(args, says):
    done = call(*args)
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_training_text_is_validated_line_by_line(tmp_path):
    texts = ["<spawn>1+2=3<sep>2+3=5</spawn><join><none><sep><none></join>no", "<spawn>1+2=3", "1+\u20282"]
    rows = [*(json.dumps({"said": text}, ensure_ascii=False) for text in texts), "{", '{"text": "1"}']
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(rows))
    done = call("validate", file, "--dialect", "spawn_join", "--field", "said")
    assert done.returncode == 1
    *wrong, last = done.stdout.splitlines()
    assert [line.partition(":")[0].partition(",")[0] for line in wrong] == ["line 1", "line 2", "line 4", "line 5"]
    assert "no JSON object with a text under 'said'" in wrong[-1]
    assert last == "1 of 5 texts are well-formed spawn_join"
    file.write_text(json.dumps({"text": "1+2=3"}))
    assert call("validate", file, "--dialect", "spawn_join").returncode == 0


def test_a_trace_that_failed_is_status_1_and_the_others_are_printed():
    done = call("generate", "1,2=3", PROBLEMS[0], "--engine", "torch", "-e", "kv_tokens=30", "--threads", "1", "--json")
    assert done.returncode == 1
    assert done.stdout.count("\n") == 2
    assert done.stderr.startswith("error: ")
    assert "of 2 traces failed, the first because: " in done.stderr


def test_an_unknown_option_is_status_2():
    done = call("generate", "1,2=3", "--thread", "3")
    assert done.returncode == 2
    assert "--threads" in done.stderr


def test_prompts_from_a_pipe_give_json_lines_and_a_file(tmp_path):
    out = tmp_path / "traces.jsonl"
    done = call("generate", "--json", "--out", out, "--engine", "torch", text="\n".join(PROBLEMS[:3]) + "\n")
    assert done.returncode == 0, done.stderr
    prompts = sorted(json.loads(line)["prompt"] for line in done.stdout.splitlines())
    assert prompts == sorted(PROBLEMS[:3])
    assert sorted(trace.prompt for trace in read_traces(out)) == prompts


def test_ctrl_c_keeps_what_was_finished(tmp_path):
    out = tmp_path / "traces.jsonl"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROBLEMS))
    command = [*COMMAND, "generate", "--file", prompts, "--n", "50", "--children", "1", "--json", "--out", out]
    with (tmp_path / "printed").open("w") as printed:
        process = subprocess.Popen(
            list(map(str, command)), stdout=printed, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
        )  # fmt: skip
    deadline = time.time() + 240
    while time.time() < deadline and not (out.exists() and out.read_text().count("\n") >= 5):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped; what was finished is kept"
    assert "Traceback" not in errors
    kept = list(read_traces(out))
    assert 5 <= len(kept) < len(PROBLEMS) * 50
    assert [json.loads(line)["prompt"] for line in (tmp_path / "printed").open()] == [trace.prompt for trace in kept]


def test_a_broken_line_of_a_trace_file_is_named(tmp_path):
    file = tmp_path / "broken.jsonl"
    file.write_text('{"version": 1}\n')
    for more, says in (["--resume"], f"{file}, line 1: "), ([], f"{file} is there already: --resume"):
        command = [sys.executable, "-m", "evals.countdown", "--problems", "1", "--out", str(file), *more]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    assert file.read_text() == '{"version": 1}\n'


def test_doctor_finds_this_installation_well():
    done = call("doctor")
    assert done.returncode == 0, done.stdout
    assert "vllm" in done.stdout
    assert "all is well" in done.stdout
