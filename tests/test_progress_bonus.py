"""MRT's progress bonus, beside plain transformers on the text that a root saw."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.grammars import build
from parallel_reason import InputError, ParallelLLM, SamplingParams, flatten
from parallel_reason.tasks import find
from rl.progress_bonus import Progress
from rl.rewards import Correctness
from rl.rollouts import RolloutSource

EOS = 0
LIMITS = {"tokens": 400, "tokens_per_thread": 60, "children": 3, "forks": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build(str(tmp_path_factory.mktemp("model")), "qwen3", ["spawn_join", "threadweaver", "multiverse"])


@pytest.fixture(scope="module")
def llm(model):
    with ParallelLLM(model, engine="torch", dialect="spawn_join", limits=LIMITS) as llm:
        yield llm


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    for name, problem in (("train", "ab"), ("test", "ba")):
        (folder / f"{name}.jsonl").write_text(json.dumps({"problem": problem, "answer": "cd"}) + "\n")
    return find(f"jsonl:{folder}/train.jsonl:{folder}/test.jsonl")


def after_last_join(trace):
    """What the root saw right after its last join, from its spans or from the flat text; None if it never joined."""
    spans, forks = trace.root.spans, trace.root.forks
    if not forks:
        return None
    first = next((n for n in range(forks[-1].at, len(spans)) if spans[n].origin == "sampled"), len(spans))
    if forks[-1].join_rule == "message":
        return [token for span in spans[:first] for token in span.ids]
    text = flatten(trace)
    seen = text[: len(text) - sum(len(span.ids) for span in spans[first:])]
    return [*trace.prompt_ids, *(token for token in seen if token != EOS)]  # which the join took back from a child


def logprob(reference, context, answer):
    ids = torch.tensor([[*context, *answer]])
    with torch.no_grad():
        rows = reference(ids).logits[0].log_softmax(-1)
    return sum(float(rows[place - 1, ids[0, place]]) for place in range(len(context), ids.shape[1]))


@pytest.mark.parametrize("dialect", ["spawn_join", "threadweaver"])
def test_the_bonus_is_the_change_of_the_answers_logprob_over_the_joins(llm, model, task, dialect):
    llm = llm.with_dialect(dialect)
    part = Progress(alpha=0.5, text="x ANSWER")
    source = RolloutSource(llm, task, SamplingParams(temperature=1.0, n=32, seed=1), llm.session.limits, [part])
    [group] = source.sample(0, 1)
    answer = llm.tokenizer.encode("x cd", add_special_tokens=False)
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    joined = 0
    for rollout in group:
        context = after_last_join(rollout.trace)
        expected = 0.0
        if context is not None:
            joined += 1
            expected = 0.5 * (
                logprob(reference, context, answer) - logprob(reference, rollout.trace.prompt_ids, answer)
            )
        assert rollout.parts == {"progress": pytest.approx(expected, abs=1e-3)}
        assert rollout.reward == pytest.approx(expected, abs=1e-3)
    assert joined >= 3
    assert any(len(rollout.trace.root.forks) > 1 for rollout in group)


def test_what_cannot_be_measured_is_refused_in_one_line(llm, task):
    sampling = SamplingParams(temperature=1.0, n=12, seed=1)
    parts = [Correctness(), Progress(text="ANSWER")]
    grafting = llm.with_dialect("multiverse")
    with pytest.raises(InputError, match="joins by message or relinearises"):
        RolloutSource(grafting, task, sampling, llm.session.limits, parts).sample(0, 1)
    with pytest.raises(InputError, match="needs a task whose answers are texts"):
        parts[1].measured(llm, list(find("countdown").test(1)), [])
    with pytest.raises(ValueError, match="needs ANSWER"):
        Progress(text="the answer")
