"""The training command, for a few steps: it trains, resumes, and writes what vLLM and transformers load."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from parallel_reason.engines import EMBEDDED

SMALL = ["--width", "64", "--layers", "1", "--batch", "2", "--children", "2"]
STEPS = ["--steps", "4", "--hard-negative-steps", "2", "--eval-steps", "3", "--save-steps", "3"]
COMMAND = [sys.executable, "-m", "rl.train_countdown", *SMALL, *STEPS]


def train(tmp_path, name):
    out, run = tmp_path / f"model-{name}", tmp_path / f"run-{name}"
    done = subprocess.run([*COMMAND, "--out", str(out), "--run", str(run)], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return out, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("train"), "whole")


def test_it_writes_a_model_and_the_recall_of_every_kind_of_token(trained):
    out, run = trained
    lines = [json.loads(line) for line in (run / "recall.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert {"sum", "difference", "product", "quotient", "verdict no", "verdict yes", "spawn", "answer"} <= set(lines[0])
    weights = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_weights(trained, tmp_path):
    whole, run = trained
    partial = tmp_path / "run-killed"
    partial.mkdir()
    (run / "checkpoint-3").rename(partial / "checkpoint-3")
    resumed, _ = train(tmp_path, "killed")
    a, b = load_file(whole / "model.safetensors"), load_file(resumed / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_embedded_model_is_small_and_in_bf16():
    weights = load_file(EMBEDDED / "model.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) <= 5_000_000
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) <= 12 * 2**20
