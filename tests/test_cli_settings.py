"""Options of engines and dialects on the command line are TOML values."""

import json

import pytest

from parallel_reason.cli.settings import toml_value
from tests.commands import PROBLEM, TORCH, error_line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False), ("true", True), ("0.5", 0.5), ("-1", -1), ("1_000", 1000), ("[1, 2]", [1, 2]),
        ('"5"', "5"), ('{a = "b"}', {"a": "b"}), ("first", "first"), ("http://host:8000/v1", "http://host:8000/v1"),
        ("", ""), ("1\nb = 2", "1\nb = 2"), ("2026-01-02", "2026-01-02"), ("07:32:00", "07:32:00"), ("a=b", "a=b"),
    ],
)  # fmt: skip
def test_a_value_is_toml_or_text(text, value):
    found = toml_value(text)
    assert found == value
    assert type(found) is type(value)


def test_options_reach_the_dialect_and_the_engine_as_values(command):
    done = command("generate", PROBLEM, *TORCH, "-o", "join_on=first", "-e", "kv_tokens=40", "--threads", "1", "--json")
    assert done.returncode == 1
    trace = json.loads(done.stdout)
    assert trace["dialect_options"]["join_on"] == "first"
    assert trace["threads"][0]["status"] == "failed"  # 40 tokens of KV are not enough for this problem


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["-o", "join_on"], "--option join_on: write it as name=value"),
        (["-e", "=1"], "--engine-option =1: write it as name=value"),
        (["-e", "compile=False"], "--engine-option compile=False: values are TOML; write compile=false"),
        (["-e", "context=None"], "--engine-option context=None: values are TOML; leave the option out"),
        (["-e", "dtype=float32"], "--engine-option dtype=float32: 'dtype' cannot be given this way"),
        (["--chat-option", "tokenize=true"], "--chat-option tokenize=true: 'tokenize' cannot be given this way"),
        (["-s", "seed"], "--sampling seed: write it as name=value"),
        (["-e", "model=m"], "--engine-option model=m: 'model' cannot be given this way"),
        (["-o", "tokenizer=1"], "--option tokenizer=1: 'tokenizer' cannot be given this way"),
        ([*TORCH, "-e", "no_such=1"], "no_such"),
        ([*TORCH, "-o", "no_such=1"], "no_such"),
        ([*TORCH, "-o", "join_on=false"], "join_on"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_line(command, args, says):
    assert says in error_line(command("generate", PROBLEM, *args))
