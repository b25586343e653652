"""The command: help, bad input, and the commands beside `generate`."""

import json
import subprocess
import sys

import pytest

from parallel_reason import __version__
from tests.commands import PROBLEM, TORCH, call


def error_line(done):
    """The one line of an error."""
    assert done.returncode == 1
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.rstrip("\n")


def test_version():
    assert call("--version").stdout == f"parallel-reason {__version__}\n"


def test_help_teaches():
    assert "doctor" in call("--help").stdout
    said = " ".join(call("generate", "--help").stdout.replace("│", "").split())
    assert PROBLEM in said
    assert "prompt_index and sample" in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["generate", "1,2=3", "--model", "/no/model"], "no model '/no/model'"),
        (["generate", "1,2=3", "--dialect", "morse"], "unknown dialect 'morse'"),
        (["generate", "1,2=3", "--engine", "sglang"], "unknown engine 'sglang'"),
        (["generate", "1,2=3", "--threads", "0"], "--threads 0"),
        (["generate", "1,2=3", "--temperature", "-1"], "--temperature -1.0"),
        (["generate", "1,2=3", "--deadline-s", "0"], "--deadline-s 0.0"),
        (["generate", "1,2=3", "--file", "x"], "not both"),
        (["generate", "--file", "/no/file"], "cannot read /no/file: No such file"),
        (["generate"], "no prompt"),
        (["generate", "1,2=3", "--out", "/dev/null/x.jsonl"], "cannot write /dev/null/x.jsonl"),
        (["check", "--temperature", "-1"], "--temperature -1.0"),
        (["check", "--dtype", "int8"], "--dtype int8"),
        (["demo", "--out", "/"], "cannot write /: Is a directory"),
        (["validate", "/no/file", "--dialect", "spawn_join"], "cannot read /no/file: No such file"),
        (["validate", "/dev/null", "--dialect", "spawn_join"], "/dev/null has no text: give a JSONL file"),
        (["validate", __file__, "--dialect", "spawn_join", "--model", "/no/model"], "no tokenizer in '/no/model'"),
        (["generate", b"caf\xe9"], "argument 'caf\\xe9' is not UTF-8: byte 0xe9"),
        (["generate", b"\xed\xa0\x80"], "argument '\\xed\\xa0\\x80' is not UTF-8: byte 0xed"),
        (["validate", __file__, "--dialect", b"\xff"], "argument '\\xff' is not UTF-8: byte 0xff"),
    ],
)
def test_bad_input_is_one_line_and_status_1(args, says):
    assert says in error_line(call(*args))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["generate", "[INST] 1,2=3 [/INST]", *TORCH], "'[INST] 1,2=3 [/INST]'"),
        (["generate", "1", "--model", "/data/[lora]/m"], "no model '/data/[lora]/m'"),
        (["generate", "1", "--model", "/data/:smile:/m"], "no model '/data/:smile:/m'"),
        (["generate", "--file", "/data/[/b]"], "cannot read /data/[/b]"),
        (["generate", "1", "-e", "[/red]"], "--engine-option [/red]: write it"),
        (["generate", "1", "--dialect", "a\nb\x1b[31m"], r"unknown dialect 'a\nb\x1b[31m'"),
        (["validate", "/no[/red]", "--dialect", "x"], "cannot read /no[/red]"),
    ],
)
def test_nothing_in_an_error_is_taken_for_markup(args, says):
    assert says in error_line(call(*args))


def test_an_unknown_option_is_status_2():
    done = call("generate", "1,2=3", "--thread", "3")
    assert done.returncode == 2
    assert "--threads" in done.stderr
    done = call("generate", "1,2=3", "--n", "[/INST]")
    assert done.returncode == 2
    assert "Invalid value for '--n'" in done.stderr


def test_training_text_is_validated_line_by_line(tmp_path):
    texts = ["<spawn>1+2=3<sep>2+3=5</spawn><join><none><sep><none></join>no", "<spawn>1+2=3", "1+\u20282"]
    rows = [*(json.dumps({"said": text}, ensure_ascii=False) for text in texts), "{", '{"text": "1"}']
    file = tmp_path / "train.jsonl"
    file.write_text("\ufeff" + "\n".join([*rows, r'{"said": "1\ud800"}']))
    done = call("validate", file, "--dialect", "spawn_join", "--field", "said")
    assert done.returncode == 1
    *wrong, last = done.stdout.splitlines()
    numbers = [line.partition(":")[0].partition(",")[0] for line in wrong]
    assert list(dict.fromkeys(numbers)) == ["line 1", "line 2", "line 4", "line 5", "line 6"]
    assert all("no JSON object with a text under 'said'" in line for line in wrong[-3:])
    assert last == "1 of 6 texts are well-formed spawn_join"
    file.write_text(json.dumps({"text": "1+2=3"}))
    assert call("validate", file, "--dialect", "spawn_join", "-o", "prefix=message").returncode == 0


def test_all_problems_of_a_text_are_printed_and_the_broken_tag_comes_first(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"text": "1<spawn>2</spawn>3<spawn>4"}))
    done = call("validate", file, "--dialect", "spawn_join")
    first, second, *_, last = done.stdout.splitlines()
    assert first.startswith("line 1, token 5: <spawn> is not closed: ")
    assert second.startswith("line 1, token 4: ")
    assert last == "0 of 1 texts are well-formed spawn_join"


def test_check_finds_an_engine_exact_and_a_wrong_one_not():
    done = call("check", PROBLEM, *TORCH, "--n", "2", "--tokens", "300", "--temperature", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 traces with 2 forks" in done.stdout
    assert done.stdout.splitlines()[-1] == "exact: the bound is 0.0001 nats in float32"
    wrong = call("check", PROBLEM, *TORCH, "--n", "1", "--tokens", "400", "--dtype", "bfloat16")
    assert wrong.returncode == 1
    assert "largest difference" in wrong.stdout
    assert wrong.stdout.splitlines()[-1].startswith("NOT exact")


def test_doctor_finds_this_installation_well():
    done = call("doctor")
    assert done.returncode == 0, done.stdout
    assert "vllm" in done.stdout
    assert "all is well" in done.stdout


def test_doctor_says_that_vllm_takes_too_long_to_load():
    code = "import parallel_reason.cli.doctor as d, parallel_reason.cli.app as a; d.LOADS_WITHIN_S = 0.01; a.app()"
    done = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "wrong: vLLM's compiled part did not load within 0.01 s" in done.stdout
    assert "Traceback" not in done.stderr
