"""Supervised fine-tuning for real: the embedded model's own job, and traces of files with adapters."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from parallel_reason import InputError, Limits, ParallelLLM, SamplingParams, TraceWriter, parse
from parallel_reason.dialects import bind
from parallel_reason.engines import EMBEDDED
from parallel_reason.prepare import prepare
from parallel_reason.prepared import read_prepared
from rl.config import read_config
from rl.run_folder import COMPLETE
from rl.sft import train
from rl.sft_config import SftConfig
from tests.test_prepare import build

EMBEDDED_JOB = Path(__file__).parents[1] / "rl" / "configs" / "embedded.toml"


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def smaller(out):
    """The job of the embedded model, for a few steps of a smaller model."""
    job = read_config(SftConfig, EMBEDDED_JOB).model_dump()
    job["optimization"] |= {"steps": 6, "save_steps": 3, "logging_steps": 1, "micro_batch": 2}
    job["data"] |= {"children": 2, "hard_negative_steps": 2}
    return SftConfig.model_validate(
        job | {"out": out, "model": {"width": 64, "layers": 1}, "batch": 2, "recall_every": 3}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("sft")
    train(smaller(out))
    return out


def test_the_embedded_models_job_writes_a_model_and_the_recall_of_every_kind_of_token(trained):
    recalls = lines(trained / "recall.jsonl")
    assert [line["step"] for line in recalls] == [3, 6]
    kinds = {"sum", "difference", "product", "quotient", "verdict no", "verdict yes", "spawn", "answer"}
    assert kinds <= set(recalls[0])
    assert {tensor.dtype for tensor in weights(trained / "model").values()} == {torch.bfloat16}
    assert [line["step"] for line in lines(trained / "metrics.jsonl") if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint_to_the_same_weights(trained, tmp_path, capfd):
    for step in (3, 6):
        shutil.copytree(trained / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-6" / COMPLETE).unlink()
    train(smaller(tmp_path))
    shown = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.partition(",")[0] for line in shown] == ["step 4", "step 5", "step 6"]
    assert all("loss" in line and line.endswith("(of 6)") for line in shown)
    whole, resumed = weights(trained / "model"), weights(tmp_path / "model")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_embedded_model_is_small_and_in_bf16():
    embedded = weights(EMBEDDED)
    assert sum(tensor.numel() for tensor in embedded.values()) <= 5_000_000
    assert {tensor.dtype for tensor in embedded.values()} == {torch.bfloat16}
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) <= 12 * 2**20


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """A file of traces of the embedded model, each with two children at most."""
    file = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    with ParallelLLM(engine="torch") as llm, TraceWriter(file) as writer:
        llm.generate(["22,26,31,53=27", "4,7,8,9=24"], SamplingParams(), Limits(children=2), on_trace=writer.write)
    return file


def job(out, traces, **changes):
    values = {
        "out": out, "model": str(EMBEDDED), "data": {"kind": "traces", "files": [traces]}, "batch": 2,
        "optimization": {"steps": 4, "learning_rate": 1e-3, "micro_batch": 1, "report_to": []},
    }  # fmt: skip
    return SftConfig.model_validate(values | changes)


def test_traces_of_files_are_learned_by_adapters_which_are_merged_and_tried_while_they_train(traces, tmp_path):
    evaluation = {"task": "countdown", "every": 2, "problems": 2, "engine": "torch", "limits": {"children": 2}}
    train(job(tmp_path, traces, lora={"rank": 4, "alpha": 8}, evaluation=evaluation))
    logged = lines(tmp_path / "metrics.jsonl")
    losses = [line["loss"] for line in logged if "loss" in line]
    assert losses[-1] < losses[0]
    tried = [line for line in logged if "eval_accuracy" in line]
    assert [line["step"] for line in tried] == [2, 4]
    assert {"eval_forked", "eval_malformed", "eval_critical_path_tokens"} <= set(tried[0])
    before, after = weights(EMBEDDED), weights(tmp_path / "model")
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert before.keys() == after.keys()
    assert changed
    assert all("proj" in name for name in changed)
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "/no/model"}, "model '/no/model'"),
        ({"dialect": "multiverse"}, "trace 0 is of dialect 'spawn_join'; 'multiverse' is trained"),
        ({"data": {"kind": "traces", "files": ["/no/file"]}}, "cannot read /no/file"),
        ({"optimization": {"micro_batch": 1, "trainer": {"no_such_field": 1}}}, "optimization: .*no_such_field"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(traces, tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as refused:
        train(job(tmp_path, traces, **changes))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 3, "optimization": {"micro_batch": 2}}, "micro_batch=2 does not divide"),
        ({"model": {"width": 64}}, "a random model has the vocabulary of Countdown"),
        ({"recall_every": 3}, "use evaluation"),
        ({"lora": {}, "optimizer": "muon"}, "with optimizer='adamw'"),
        ({"data": {"kind": "tables"}}, "tables"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        job(tmp_path, "x.jsonl", **changes)


BLOCK = (
    "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>\n<Path>\n1: is\n</Path>\n"
    "<Path>\n2: Paris\n</Path>\n<Conclusion>\nc\n</Conclusion>\n</Parallel>\n of France"
)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_adapters_train_the_rows_of_added_tags_and_no_others(tied, tmp_path):
    ready = tmp_path / "ready"
    prepare(build(tmp_path / "plain", tied=tied), "multiverse", ready)
    tokenizer = AutoTokenizer.from_pretrained(ready)
    trace = parse(bind("multiverse", tokenizer), tokenizer, tokenizer.encode("the"), tokenizer.encode(BLOCK))
    with TraceWriter(tmp_path / "traces.jsonl") as writer:
        writer.write(trace)
    train(job(tmp_path / "run", tmp_path / "traces.jsonl", model=str(ready), batch=1, lora={"rank": 2, "alpha": 4}))
    before, after = weights(ready), weights(tmp_path / "run" / "model")
    added = {token.id for token in read_prepared(ready).added}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in before:
            changed = set((before[name] != after[name]).any(1).nonzero().flatten().tolist())
            assert changed
            assert changed <= added
    assert before.keys() == after.keys()
    assert ("lm_head.weight" in before) != tied
