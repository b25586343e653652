"""Reinforcement learning for real: a real engine, TRL's trainer, and the one-page loop beside it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from parallel_reason import InputError, Limits, ParallelLLM, SamplingParams, read_traces
from parallel_reason.engines import EMBEDDED
from rl.loop import losses
from rl.policy_config import PolicyConfig
from rl.run_folder import COMPLETE
from rl.train import train

LIMITS = Limits(children=2)


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    """The embedded model with noise on its weights: it forks, and is right sometimes."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("unsure")
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.12 * parameter.std() * torch.randn_like(parameter) if parameter.ndim > 1 else 0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(folder)
    return str(folder)


def config(out, model, **changes):
    values = {
        "out": out, "model": model, "engine": "torch", "dialect": "spawn_join", "groups": 2, "limits": LIMITS,
        "sampling": {"temperature": 1.0, "n": 4, "seed": 5}, "objective": {"name": "p_grpo"}, "seed": 3,
        "rewards": [{"kind": "correctness"}, {"kind": "total_tokens", "cost": 1.0, "of": "all"}],
        "optimization": {"steps": 4, "learning_rate": 1e-3, "micro_batch": 4, "save_steps": 3, "report_to": [],
                         **changes.pop("optimization", {})},
    }  # fmt: skip
    return PolicyConfig.model_validate(values | changes)


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def metrics(out):
    return [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(unsure, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train(config(out, unsure, iterations=2, kl_weight=0.01))
    return out


def test_a_run_changes_the_weights_and_logs_what_it_did(trained, unsure):
    before, after = weights(unsure), weights(trained / "model")
    assert any(not torch.equal(before[name], after[name]) for name in after)
    steps = [line for line in metrics(trained) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert {
        "reward/correctness", "reward/total_tokens", "pass@4", "forked", "malformed", "threads", "entropy",
        "critical_path_tokens", "sampled_tokens_per_s", "weight_update_s", "kl_to_start",
    } <= set(steps[0])  # fmt: skip
    assert max(line.get("largest_sampler_mismatch", 0) for line in steps) < 1e-4
    assert any(line["grad_norm"] > 0 for line in steps)


def test_every_batch_of_traces_has_the_version_of_the_policy_that_sampled_it(trained):
    for batch, file in enumerate(sorted((trained / "traces").iterdir())):
        traces = list(read_traces(file))
        assert len(traces) == 8
        versions = {span.policy_version for trace in traces for thread in trace.threads for span in thread.spans}
        assert versions - {None} == {batch}


def test_a_run_that_is_cut_short_within_a_batch_goes_on_to_the_same_weights(trained, unsure, tmp_path):
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    shutil.copytree(trained / "checkpoint-4", tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-4" / COMPLETE).unlink()  # as a full disk leaves it
    assert (tmp_path / "checkpoint-3" / "rollouts.pt").exists()
    train(config(tmp_path, unsure, iterations=2, kl_weight=0.01))
    whole, resumed = weights(trained / "model"), weights(tmp_path / "model")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from rl.policy_config import PolicyConfig
from rl.train import train

out = Path(sys.argv[1])
config = PolicyConfig.model_validate_json((out / "config.json").read_text())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))  # the weights fit, the optimizer's state does not
try:
    train(config.model_copy(update={"out": out}))
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_last_whole_checkpoint(trained, tmp_path):
    shutil.copy(trained / "config.json", tmp_path)
    shutil.copytree(trained / "checkpoint-3", tmp_path / "checkpoint-3")
    ran = subprocess.run([sys.executable, "-c", ON_A_FULL_DISK, tmp_path], check=True, capture_output=True, text=True)
    assert f"{tmp_path}/checkpoint-4 could not be written: " in ran.stdout.splitlines()[-1]
    assert (tmp_path / "checkpoint-3" / COMPLETE).exists()
    assert not (tmp_path / "checkpoint-4").exists()


def test_a_reward_that_raises_ends_the_run_and_leaves_its_checkpoints(unsure, tmp_path):
    part = {"kind": "function", "function": "tests.reward_functions:raises_after_an_update"}
    broken = config(tmp_path, unsure, groups=1, rewards=[part], optimization={"steps": 2, "save_steps": 1})
    with pytest.raises(InputError, match="raises_after_an_update raised RuntimeError: the judge is not there"):
        train(broken)
    assert [path.name for path in tmp_path.glob("checkpoint-*") if (path / COMPLETE).exists()] == ["checkpoint-1"]
    assert len(list(read_traces(tmp_path / "traces" / "000001.jsonl"))) == 4


def test_a_folder_with_another_configuration_is_refused(trained, unsure):
    with pytest.raises(InputError, match=r"of another configuration \(kl_weight was 0.01, is 0.5\)"):
        train(config(trained, unsure, iterations=2, kl_weight=0.5))


def test_the_page_long_loop_has_the_losses_and_weights_of_the_real_one(unsure, tmp_path):
    real = config(
        tmp_path / "run", unsure, rewards=[{"kind": "correctness"}, {"kind": "total_tokens", "cost": 1.0}],
        sampling={"temperature": 1.0, "n": 4, "seed": 3}, optimization={"steps": 3, "micro_batch": 2}, measure_kl=False,
    )  # fmt: skip
    train(real)
    with ParallelLLM(unsure, engine="torch", limits=LIMITS) as llm:
        run = losses(llm, tmp_path / "weights", steps=3, groups=2, size=4, lr=1e-3, cost=1.0, seed=3)
        page = [loss for loss, _, _ in run]
    logged = [line["loss"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert page == pytest.approx(logged, abs=1e-6)
    assert any(abs(loss) > 1e-4 for loss in page)


def test_sampling_of_threads_apart_is_trained(unsure, tmp_path):
    hotter = {"temperature": 1.5, "n": 2, "seed": 1, "below": SamplingParams(temperature=0.8, top_p=0.9)}
    out = config(tmp_path, unsure, groups=1, sampling=hotter, optimization={"steps": 1, "micro_batch": 2})
    train(out)
    assert metrics(tmp_path)[0]["largest_sampler_mismatch"] < 1e-4
