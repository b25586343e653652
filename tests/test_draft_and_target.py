"""ATTS with a draft and a target model, both on the torch engine."""

import asyncio

import numpy as np
import pytest
import torch

from parallel_reason import ParallelLLM, Session
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.exactness import load_reference
from parallel_reason.strategies import DraftAndTarget, program
from tests.letters import build, letter_tokenizer

DRAWN = {"temperature": 1.0, "seed": 3, "max_tokens": 40}


def letter(text):
    return text[-1] if text else None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models over the same letters, of other weights."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        folder = build("Qwen3", tmp_path_factory.mktemp(f"letters{seed}"), num_hidden_layers=1)
        letter_tokenizer(eos_token="<eos>").save_pretrained(folder)
        made.append(folder)
    return made


@pytest.fixture(scope="module")
def llms(folders):
    options = {"engine": "torch", "dialect": "none", "device": "cpu"}
    with ParallelLLM(folders[0], **options) as draft, ParallelLLM(folders[1], **options) as target:
        yield draft, target


def run(llms, budget=None, **options):
    draft, target = llms
    strategy = DraftAndTarget(target, target_sampling={"temperature": 1.0, "seed": 4}, **options)
    [trace] = draft.run(program(strategy, answer_of=letter, budget=budget), "abc", DRAWN)
    assert trace.status == "finished", trace.stop_reason
    assert draft.kv_is_free()
    assert target.kv_is_free()
    return trace


def perplexity(model, ids, chunk):
    with torch.no_grad():
        rows = model(torch.tensor([ids + chunk])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    return float(np.exp(-rows[range(len(chunk)), chunk].mean()))


def sampled(thread):
    return [token for span in thread.spans if span.origin == "sampled" for token in span.ids]


def written(thread):
    """What the target wrote into a path."""
    return [span for span in thread.spans if span.origin == "injected" and span.ids]


def test_the_target_takes_over_the_paths_that_it_finds_unlikely(llms, folders):
    trace = run(llms, n=6, draft_tokens=5, target_tokens=7, reject=0.5, turns=1)
    model = load_reference(folders[1])
    eos = llms[0].tokenizer.eos_token_id
    firsts = [[token for token in sampled(thread)[:5] if token != eos] for thread in trace.threads[1:]]
    scores = np.array([perplexity(model, trace.prompt_ids, first) for first in firsts])
    ranks = np.array([(scores >= score).sum() for score in scores])
    unlikely = (ranks + 1) / 7 <= 0.5
    going = [thread.tokens("sampled") > 5 or bool(written(thread)) for thread in trace.threads[1:]]
    taken = [bool(written(thread)) for thread in trace.threads[1:]]
    assert taken == (unlikely & going).tolist()
    assert 0 < sum(taken) < 6
    assert all(len(written(thread)[0].ids) <= 7 for thread in trace.threads[1:] if written(thread))


def test_what_both_models_sample_is_within_the_budget(llms):
    spent, arun = [], llms[1].arun

    async def counted(*args):
        traces = await arun(*args)
        spent.append(traces[0].ledger.sampled_tokens)
        return traces

    llms[1].arun = counted
    try:
        trace = run(llms, budget={"total_tokens": 90}, n=4, draft_tokens=6, target_tokens=6, reject=0.6, turns=9)
    finally:
        del llms[1].arun
    assert sum(spent) > 0
    assert trace.ledger.sampled_tokens + sum(spent) <= 90


def test_the_answer_may_stand_in_what_the_target_wrote(llms):
    answers = set()
    for reject in (0.0, 1.0):
        trace = run(llms, n=3, draft_tokens=2, target_tokens=60, reject=reject, turns=1)
        texts = [thread for thread in trace.threads[1:] if thread.stop_reason == "the other model came to its end"]
        assert (len(texts) > 0) == (reject < 1)
        answers.add(trace.answer)
    assert None not in answers


def test_a_deadline_ends_what_the_target_does(llms):
    trace = run(llms, budget={"deadline_s": 0.05}, n=8, draft_tokens=30, target_tokens=4000, reject=0.0, turns=50)
    assert any(thread.stop_reason == "the budget is used up" for thread in trace.threads)


TOKENS = letter_tokenizer(eos_token="<eos>")


class Writes:
    """A target that writes one text, and finds everything as likely as anything."""

    def __init__(self, text):
        self.engine = ScriptedEngine.from_texts(TOKENS, {"0": [text] * 9})
        self.session = Session(self.engine, bind("none", TOKENS))

    async def arun(self, program, prompt, sampling, /):
        return await self.session.run_program(program, prompt, sampling)


def test_the_draft_may_end_right_after_what_the_target_wrote():
    draft = Session(ScriptedEngine.from_texts(TOKENS, {"0.0": ["ab", "<eos>"]}), bind("none", TOKENS))
    strategy = DraftAndTarget(Writes("xyz"), n=1, draft_tokens=2, target_tokens=3, reject=0.0, turns=1)
    [trace] = asyncio.run(draft.run_program(program(strategy, answer_of=lambda text: text), "Q"))
    assert trace.answer == "abxyz"
    assert TOKENS.decode(written(trace.threads[1])[0].ids) == "xyz"
