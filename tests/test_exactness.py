"""The contract: what an engine reported for each sampled token is what transformers gives under the layout.

The torch engine is held to it for every dialect and three model families, vLLM for every dialect and one family;
``ALL_FAMILIES=1`` adds the other families.
"""

import asyncio
import os
from collections import Counter
from dataclasses import replace

import pytest

from parallel_reason import Limits, ParallelLLM, SamplingParams
from parallel_reason.check import BOUND, compare, load_reference
from parallel_reason.controller import Run
from parallel_reason.countdown import held_out
from parallel_reason.dialects import bind, grafts
from parallel_reason.errors import InputError
from tests import test_torch_engine as torch_models
from tests.grammars import FAMILIES, PROMPTS, build

WILD = Limits(depth=3, children=6, forks=12, tokens=900, tokens_per_thread=60)
EVERY = bool(os.environ.get("ALL_FAMILIES"))
ON_TORCH = list(FAMILIES) if EVERY else ["qwen3", "llama", "gemma3"]
ON_VLLM = ["qwen3", "qwen2", "llama", "mistral"] if EVERY else ["qwen3"]
CASES = {
    "spawn_join": {}, "spawn_join, message alone": {"prefix": "message"}, "spawn_join, first": {"join_on": "first"},
    "apr": {}, "multiverse": {}, "npr": {}, "threadweaver": {}, "parallel_r1, seen": {"view": "seen", "paths": 3},
    "parallel_r1, unseen": {}, "parathinker": {"paths": 3},
}  # fmt: skip
GRAFT = ["multiverse", "npr", "parallel_r1, unseen", "parathinker"]
NO_GRAFT = [case for case in CASES if case not in GRAFT]


def many(llm, case, count):
    """Traces that run at once, so that forks of one meet the batches and the cache of the others."""
    name = case.split(",")[0]
    dialect = bind(name, llm.engine.tokenizer, **CASES[case])
    ids = llm.engine.tokenizer.encode(PROMPTS.get(name, "ab"))

    async def all_at_once():
        sampling = SamplingParams(temperature=1.0, seed=3)
        runs = [Run(llm.engine, dialect, sampling, WILD, sample) for sample in range(count)]
        return await asyncio.gather(*(run.trace("", ids) for run in runs))

    return llm.run(all_at_once())


def seen_in(traces):
    """How many forks, children below children, forks after a join, and places where something was taken back."""
    seen = Counter(forks=0, nested=0, again=0, taken_back=0, joined=0)
    for thread in (thread for trace in traces for thread in trace.threads):
        seen["forks"] += len(thread.forks)
        seen["nested"] += thread.label.count(".") > 1
        seen["again"] += len(thread.forks) > 1
        seen["joined"] += any(span.origin == "sampled" for fork in thread.forks for span in thread.spans[fork.at :])
        seen["taken_back"] += sum(span.drops > 0 for span in thread.spans)
    return seen


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """``models(family, dialect...)``: a folder with a random model that writes these dialects, and its reference."""
    made = {}

    def make(family, *dialects):
        if (family, dialects) not in made:
            folder = build(str(tmp_path_factory.mktemp("model")), family, list(dialects))
            made[family, dialects] = folder, load_reference(folder)
        return made[family, dialects]

    return make


@pytest.mark.parametrize("family", ON_TORCH)
@pytest.mark.parametrize("case", CASES)
def test_the_torch_engine_is_exact(models, case, family):
    folder, reference = models(family, case.split(",")[0])
    with (
        ParallelLLM(folder, engine="torch")
        if "spawn" in case
        else ParallelLLM(folder, engine="torch", dialect=case.split(",")[0]) as llm
    ):
        traces = many(llm, case, 24)
        assert llm.run(llm.engine.kv_is_free())
    seen = seen_in(traces)
    assert seen["joined"] > 3
    assert seen["nested"] or not case.startswith(("spawn_join", "multiverse", "npr"))
    assert seen["taken_back"] or case.startswith("spawn_join")
    assert max(compare(reference, trace).largest for trace in traces) < BOUND


@pytest.mark.parametrize("family", ON_VLLM)
@pytest.mark.parametrize("dialects", [("spawn_join", "apr"), ("threadweaver", "parallel_r1")])
def test_vllm_is_exact(models, dialects, family):
    folder, reference = models(family, *dialects)
    with ParallelLLM(folder, dialect=dialects[0]) as llm:
        for case in (case for case in NO_GRAFT if case.split(",")[0] in dialects):
            traces = many(llm, case, 32)
            assert seen_in(traces)["joined"] > 3, case
            assert max(compare(reference, trace).largest for trace in traces) < BOUND, case


@pytest.mark.parametrize("family", ON_VLLM)
@pytest.mark.parametrize("case", GRAFT)
def test_vllm_is_exact_when_it_grafts(models, case, family):
    name = case.split(",")[0]
    folder, reference = models(family, name)
    with ParallelLLM(folder, dialect=name) as llm:
        traces = many(llm, case, 24)
        assert llm.run(llm.engine.kv_is_free())
    seen = seen_in(traces)
    assert seen["joined"] > 3
    assert seen["taken_back"]
    assert seen["nested"] or name.startswith("para")
    assert not sum(trace.ledger.recomputed_tokens for trace in traces)
    assert max(compare(reference, trace).largest for trace in traces) < BOUND


def test_what_grafts_is_known_before_an_engine_starts():
    assert [case for case in CASES if grafts(case.split(",")[0], **CASES[case])] == GRAFT


def test_vllm_says_why_it_cannot_graft(tmp_path):
    folder = torch_models.build("Mistral", tmp_path, sliding_window=80, head_dim=32)
    with pytest.raises(InputError, match="attend to a window only; use engine='torch'"):
        ParallelLLM(folder, dialect="multiverse", engine="vllm")


class Off:
    """An engine that is off by one thing for every child: a position, an interval of its mask, or a neighbour's KV."""

    def __init__(self, engine, fault):
        self.engine, self.fault, self.neighbour = engine, fault, None

    def __getattr__(self, name):
        return getattr(self.engine, name)

    async def generate(self, request, on_tokens=None):
        _, _, label, _ = request.id.split("/")
        if "." in label and request.held:
            if self.fault == "position":
                request = replace(request, positions=[place + 1 for place in request.positions])
            if self.fault == "interval":
                own = request.held[0]
                request = replace(request, ids=request.ids[1:], positions=request.positions[1:], held=(own[1:],))
            if self.fault == "neighbour":
                other, self.neighbour = self.neighbour, request.held[0]
                if other is not None and len(other) == len(self.neighbour):
                    request = replace(request, held=(other,))
        return await self.engine.generate(request, on_tokens)


@pytest.mark.parametrize("fault", ["position", "interval", "neighbour"])
def test_an_engine_that_is_off_is_seen(models, fault):
    folder, reference = models("qwen3", "parallel_r1")
    with ParallelLLM(folder, engine="torch", dialect="parallel_r1") as llm:
        llm.engine = Off(llm.engine, fault)
        traces = many(llm, "parallel_r1, unseen", 24)
        llm.engine = llm.engine.engine
    assert max(compare(reference, trace).largest for trace in traces) > 10 * BOUND


@pytest.mark.parametrize("fault", ["position", "interval"])
def test_a_layout_that_is_off_is_seen(models, fault):
    folder, reference = models("qwen3", "multiverse")
    with ParallelLLM(folder, engine="torch", dialect="multiverse") as llm:
        traces = [trace for trace in many(llm, "multiverse", 24) if seen_in([trace])["joined"]]
    for trace in traces:
        child = trace.root.forks[0].children[0]
        if fault == "position":
            child.spans[0].shift += 1
        else:
            trace.root.forks[0].shares_prefix = False
    assert min(compare(reference, trace).largest for trace in traces) > 10 * BOUND


def test_greedy_tokens_are_the_references_own_first_choice(countdown, reference):
    for trace in countdown.generate([str(problem) for problem in held_out(6)]):
        compared = reference(countdown, trace)
        assert (compared.best == compared.ids).all()
        assert compared.largest < BOUND


def test_score_equals_a_plain_forward(countdown):
    import torch

    ids = countdown.generate(str(held_out(1)[0])).root.spans[0].ids * 3
    with torch.no_grad():
        logprobs = load_reference(countdown.engine.model)(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    wanted = logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert countdown.run(countdown.engine.score(ids)) == pytest.approx(wanted, abs=BOUND)
