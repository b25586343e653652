"""The contract: what the engine reported for each sampled token is what transformers gives under the layout."""

import asyncio

import numpy as np
import pytest

from parallel_reason import Limits, SamplingParams
from parallel_reason.controller import Run
from parallel_reason.countdown import held_out
from parallel_reason.dialects import bind

NESTED = Limits(depth=3, children=6, forks=12, tokens=900, tokens_per_thread=60)


def many(llm, dialect, count):
    """Traces that run at once, so that forks of one meet the batches and the cache of the others."""

    async def all_at_once():
        sampling = SamplingParams(temperature=1.0, seed=3)
        runs = [Run(llm.engine, dialect, sampling, NESTED, sample) for sample in range(count)]
        return await asyncio.gather(*(run.trace("abc", llm.engine.tokenizer.encode("abc")) for run in runs))

    return llm.run(all_at_once())


def worst(row, scores):
    return float(np.max(np.abs(row.logprobs[row.sampled] - scores)))


@pytest.mark.parametrize("prefix", ["shared", "message"])
def test_logprobs_equal_transformers_over_forks_joins_and_nesting(soup, reference, prefix):
    dialect = bind("spawn_join", soup.engine.tokenizer, prefix=prefix)
    worst_seen, forks, nested, resumed = 0.0, 0, 0, 0
    for trace in many(soup, dialect, 80):
        scores, _, row = reference(soup, trace)
        worst_seen = max(worst_seen, worst(row, scores))
        forks += trace.ledger.forks
        nested += any(label.count(".") > 1 for label in (t.label for t in trace.threads))
        resumed += any(len(t.forks) > 1 for t in trace.threads)
    assert forks > 10
    assert nested
    assert resumed
    assert worst_seen < 1e-4


def test_greedy_tokens_are_the_references_own_first_choice(countdown, reference):
    for trace in countdown.generate([str(problem) for problem in held_out(6)]):
        scores, best, row = reference(countdown, trace)
        assert (best == row.ids[row.sampled]).all()
        assert worst(row, scores) < 1e-4


def test_a_position_off_by_one_or_a_dropped_interval_is_seen(countdown, reference):
    trace = countdown.generate(str(held_out(1)[0]))
    shifted = trace.model_copy(deep=True)
    child = shifted.root.forks[0].children[0]
    child.spans[0].ids.insert(1, child.spans[0].ids[1])  # every later position of the child is one too high
    scores, _, row = reference(countdown, shifted)
    assert worst(row, scores) > 1e-3
    blind = trace.model_copy(deep=True)
    blind.root.forks[0].shares_prefix = False
    scores, _, row = reference(countdown, blind)
    assert worst(row, scores) > 1e-3


def test_score_equals_a_plain_forward(countdown):
    import torch
    from transformers import AutoModelForCausalLM

    ids = countdown.generate(str(held_out(1)[0])).root.spans[0].ids * 3
    model = AutoModelForCausalLM.from_pretrained(countdown.engine.model, dtype=torch.float32)
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    wanted = logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert countdown.run(countdown.engine.score(ids)) == pytest.approx(wanted, abs=1e-4)
