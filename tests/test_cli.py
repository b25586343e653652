"""The command: help, bad input, and the commands beside `generate`."""

import json

import pytest

from parallel_reason import __version__, exactness, layout
from parallel_reason.cli import doctor
from tests.commands import PROBLEM, TORCH, call, error_line


def test_version_of_the_installed_command():
    assert call("--version").stdout == f"parallel-reason {__version__}\n"


def test_help_teaches(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert "doctor" in command("--help").stdout
    said = command("generate", "--help").stdout
    assert all(len(line) <= 80 for line in said.splitlines())
    for panel in ("Prompts", "Model", "Output", "Sampling, as in vLLM", "Limits of each trace"):
        assert f"─ {panel} ─" in said
    said = " ".join(said.replace("│", "").split())
    assert f"parallel-reason generate {PROBLEM}" in said
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
        (["generate", "1,2=3", "--n", "0"], "--n 0"),
        (["generate", "1,2=3", "--sampling", "min_tokens=-1"], "--sampling min_tokens"),
        (["generate", "1,2=3", "--sampling", "no_such=1"], "--sampling no_such: SamplingParams has no such field"),
        (["generate", "1,2=3", "--sampling", "temperature=1"], "'temperature' cannot be given this way"),
        (["generate", "1,2=3", "--no-chat", "--system", "Be brief."], "--system is for chats: leave --no-chat out"),
        (["generate", "1,2=3", "--prompt", "no_such"], "unknown prompt 'no_such'"),
        (["generate", "1,2=3", "--chat", *TORCH], "has no chat template"),
        (
            ["generate", "hello"],
            "the embedded model solves Countdown only: 'hello' is not a Countdown problem; write the",
        ),
        (["generate", "1,2=3\n3,4=7"], "add --lines"),
        (["generate", "--file", "/no/file"], "cannot read /no/file: No such file"),
        (["generate"], "no prompt"),
        (["generate", "1,2=3", "--out", "/dev/null/x.jsonl"], "cannot write /dev/null/x.jsonl"),
        (["check", "--temperature", "-1"], "--temperature -1.0"),
        (["check", "--model", "/no/model"], "no prompt"),
        (["check", PROBLEM, "-o", "no_such=1", *TORCH], "no_such"),
        (["demo", "--out", "/"], "cannot write /: Is a directory"),
        (["validate", "/no/file", "--dialect", "spawn_join"], "cannot read /no/file: No such file"),
        (["validate", "/dev/null", "--dialect", "spawn_join"], "/dev/null has no text: give a JSONL file"),
        (["validate", __file__, "--dialect", "spawn_join", "--model", "/no/model"], "no tokenizer in '/no/model'"),
        (["generate", b"caf\xe9"], "argument 'caf\\xe9' is not UTF-8: byte 0xe9"),
        (["generate", b"\xed\xa0\x80"], "argument '\\xed\\xa0\\x80' is not UTF-8: byte 0xed"),
        (["validate", __file__, "--dialect", b"\xff"], "argument '\\xff' is not UTF-8: byte 0xff"),
    ],
)
def test_bad_input_is_one_line_and_status_1(command, args, says):
    assert says in error_line(command(*args))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["generate", "[INST] 1,2=3 [/INST]"], "'[INST] 1,2=3 [/INST]'"),
        (["generate", "1", "--model", "/data/[lora]/m"], "no model '/data/[lora]/m'"),
        (["generate", "1", "--model", "/data/:smile:/m"], "no model '/data/:smile:/m'"),
        (["generate", "--file", "/data/[/b]"], "cannot read /data/[/b]"),
        (["generate", PROBLEM, "-e", "[/red]"], "--engine-option [/red]: write it"),
        (["generate", PROBLEM, "--dialect", "a\nb\x1b[31m"], r"unknown dialect 'a\nb\x1b[31m'"),
        (["validate", "/no[/red]", "--dialect", "x"], "cannot read /no[/red]"),
    ],
)
def test_nothing_in_an_error_is_taken_for_markup(command, args, says):
    assert says in error_line(command(*args))


def test_an_unknown_option_is_status_2(command):
    done = command("generate", "1,2=3", "--thread", "3")
    assert done.returncode == 2
    assert "--threads" in done.stderr
    done = command("generate", "1,2=3", "--n", "[/INST]")
    assert done.returncode == 2
    assert "Invalid value for '--n'" in done.stderr


def test_training_text_is_validated_line_by_line(command, tmp_path):
    texts = ["<spawn>1+2=3<sep>2+3=5</spawn><join><none><sep><none></join>no", "<spawn>1+2=3", "1+\u20282"]
    rows = [*(json.dumps({"said": text}, ensure_ascii=False) for text in texts), "{", '{"text": "1"}']
    file = tmp_path / "train.jsonl"
    file.write_text("\ufeff" + "\n".join([*rows, r'{"said": "1\ud800"}']))
    done = command("validate", file, "--dialect", "spawn_join", "--field", "said")
    assert done.returncode == 1
    *wrong, last = done.stdout.splitlines()
    numbers = [line.partition(":")[0].partition(",")[0] for line in wrong]
    assert list(dict.fromkeys(numbers)) == ["line 1", "line 2", "line 4", "line 5", "line 6"]
    assert all("no JSON object with a text under 'said'" in line for line in wrong[-3:])
    assert last == "1 of 6 texts are well-formed spawn_join"
    file.write_text(json.dumps({"text": "1+2=3"}))
    assert command("validate", file, "--dialect", "spawn_join", "-o", "prefix=message").returncode == 0


def test_all_problems_of_a_text_are_printed_and_the_broken_tag_comes_first(command, tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"text": "1<spawn>2</spawn>3<spawn>4"}))
    done = command("validate", file, "--dialect", "spawn_join")
    first, second, *_, last = done.stdout.splitlines()
    assert first.startswith("line 1, token 5: <spawn> is not closed: ")
    assert second.startswith("line 1, token 4: ")
    assert last == "0 of 1 texts are well-formed spawn_join"


def test_check_finds_an_engine_exact_beside_plain_decoding(command):
    done = command("check", PROBLEM, *TORCH, "--n", "2", "--tokens", "300", "--temperature", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Loading" not in done.stderr  # the bar of transformers
    assert "2 traces with 2 forks" in done.stdout
    assert "the engine, without forks largest " in done.stdout
    assert done.stdout.splitlines()[-1] == "exact: the bound is 0.0001 nats in float32"


def test_check_in_16_bits_is_held_to_the_rounding_of_transformers(command, monkeypatch):
    args = ["check", *TORCH, "--n", "2", "--tokens", "300", "--dtype", "bfloat16"]
    done = command(*args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "transformers in bfloat16" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("exact: the bound is 2 times the mean and 4 times the largest of")

    def shifted(trace):
        row = layout(trace)
        row.positions[len(trace.prompt_ids) :] += 1
        return row

    monkeypatch.setattr(exactness, "layout", shifted)  # as if the engine's positions were wrong by one
    done = command(*args)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("NOT exact: ")


def test_doctor_finds_this_installation_well(command):
    done = command("doctor")
    assert done.returncode == 0, done.stdout
    assert "vllm" in done.stdout
    assert "all is well" in done.stdout


def test_doctor_says_that_vllm_takes_too_long_to_load(command, monkeypatch):
    monkeypatch.setattr(doctor, "LOADS_WITHIN_S", 0.01)
    done = command("doctor")
    assert done.returncode == 1
    assert "wrong: vLLM's compiled part did not load within 0.01 s" in done.stdout
    assert "Traceback" not in done.stderr
