"""Reinforcement learning with its rollouts on Ray: what it changes, which is nothing, and what it survives."""

import json
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.local_ray import ray_cluster
from parallel_reason import InputError, read_traces
from rl.on_ray import train_on_ray
from rl.policy_config import PolicyConfig
from rl.run_folder import COMPLETE
from rl.train import train
from tests.fleets import QUICK, kill, wait_until
from tests.test_fleet import changed_weights

pytestmark = pytest.mark.fleet

FLEET = {"engines": 2, "cpus_per_engine": 0.5, "traces_per_engine": 4, **QUICK}


@pytest.fixture(scope="module")
def on_ray():
    with ray_cluster(num_cpus=3):
        yield


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    return str(changed_weights(tmp_path_factory.mktemp("unsure"), noise=0.1))


def config(out, model, **changes):
    values = {
        "out": out, "model": model, "engine": "torch", "dialect": "spawn_join", "groups": 2, "limits": {"children": 2},
        "sampling": {"temperature": 1.0, "n": 4, "seed": 5}, "objective": {"name": "p_grpo"}, "seed": 3,
        "rewards": [{"kind": "correctness"}, {"kind": "total_tokens", "cost": 1.0}], "measure_kl": False,
        "optimization": {"steps": 3, "learning_rate": 1e-3, "micro_batch": 4, "save_steps": 2, "report_to": []},
    }  # fmt: skip
    return PolicyConfig.model_validate(values | changes)


def losses(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["reward"], line["grad_norm"]) for line in lines if "loss" in line]


def weights(out):
    return load_file(out / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(unsure, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    train(config(out, unsure))
    return out


def test_losses_and_weights_are_the_same_with_and_without_ray(alone, unsure, on_ray, tmp_path):
    train(config(tmp_path, unsure, fleet=FLEET))
    assert losses(tmp_path) == losses(alone)
    assert any(norm > 0 for _, _, _, norm in losses(alone))
    ours, theirs = weights(tmp_path), weights(alone)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for batch, file in enumerate(sorted((tmp_path / "traces").iterdir())):
        spans = [span for trace in read_traces(file) for thread in trace.threads for span in thread.spans]
        assert {span.policy_version for span in spans} - {None} == {batch}


def test_an_engine_that_is_killed_while_it_trains_changes_nothing(alone, unsure, on_ray, tmp_path, monkeypatch):
    from parallel_reason import ParallelLLM
    from tests.fleets import members, restarts

    generate, counts = ParallelLLM.generate, []

    def killing(llm, prompts, *args, **options):
        write, counts_before = options["on_trace"], len(counts)

        def on_trace(trace):
            write(trace)
            if counts_before == 1 and not killed:
                killed.append(kill(members(llm)[0].pid))

        killed = []
        counts.append(llm)
        return generate(llm, prompts, *args, **options | {"on_trace": on_trace})

    monkeypatch.setattr(ParallelLLM, "generate", killing)
    train(config(tmp_path, unsure, fleet=FLEET))
    assert restarts(counts[0]) == 1
    assert losses(tmp_path) == losses(alone)
    traces = [trace for file in (tmp_path / "traces").iterdir() for trace in read_traces(file)]
    assert len({trace.id for trace in traces}) == len(traces) == 3 * 8
    ours, theirs = weights(tmp_path), weights(alone)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_sampling_ahead_keeps_its_bound_and_throws_nothing_away(unsure, on_ray, tmp_path):
    steps = {"steps": 4, "learning_rate": 1e-3, "micro_batch": 4, "save_steps": 4, "report_to": []}
    train(config(tmp_path, unsure, fleet=FLEET, staleness=1, optimization=steps))
    files = sorted((tmp_path / "traces").iterdir())
    assert [file.stem for file in files] == ["000000", "000001", "000002", "000003"]
    behind = []
    for batch, file in enumerate(files):
        traces = list(read_traces(file))
        assert sorted((trace.task, trace.sample) for trace in traces) == sorted(
            (task, sample) for task in {trace.task for trace in traces} for sample in range(4)
        )
        assert len(traces) == 8
        spans = [span for trace in traces for thread in trace.threads for span in thread.spans]
        behind += [batch - span.policy_version for span in spans if span.policy_version is not None]
    assert set(behind) <= {0, 1}
    assert 1 in behind  # it did sample ahead
    assert len(losses(tmp_path)) == 4


def test_what_a_stale_batch_needs_is_said_at_once(unsure, tmp_path):
    with pytest.raises(ValueError, match="staleness needs the log-probs that were sampled"):
        config(tmp_path, unsure, fleet=FLEET, staleness=1, sampling={"temperature": 0.7, "n": 2})
    with pytest.raises(ValueError, match="changes weights between traces only"):
        config(tmp_path, unsure, staleness=1)


def test_a_learner_that_is_killed_goes_on_to_the_same_weights(alone, unsure, on_ray, tmp_path):
    learner = {"max_failures": 2, "cpus": 0.5}
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(train_on_ray, train, config(tmp_path, unsure, fleet=FLEET, ray_train=learner))
        checkpoint = tmp_path / "checkpoint-2" / COMPLETE
        wait_until(lambda: checkpoint.exists() or run.done(), 300)
        workers = [each.pid for each in psutil.process_iter(["cmdline"]) if "TrainWorker" in str(each.info["cmdline"])]
        for pid in workers:
            kill(pid)
        run.result()
    assert len(workers) == 1
    assert losses(tmp_path) == losses(alone)
    ours, theirs = weights(tmp_path), weights(alone)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_may_go_on_with_or_without_a_fleet_but_not_otherwise(alone, unsure):
    with pytest.raises(InputError, match="of another configuration"):
        train(config(alone, unsure, fleet=FLEET, kl_weight=0.5))
