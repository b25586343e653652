"""The contract: what an engine reported for each sampled token is what transformers gives under the layout.

The torch engine is held to it for every dialect and three model families, vLLM for every dialect and one family;
``ALL_FAMILIES=1`` adds the other families.
"""

import asyncio
import contextlib
import os
from dataclasses import replace

import pytest

from benchmarks.grammars import FAMILIES, build
from parallel_reason import ParallelLLM
from parallel_reason.dialects import grafts
from parallel_reason.engines import start
from parallel_reason.errors import EngineError, InputError
from parallel_reason.exactness import BOUND, compare, load_reference
from parallel_reason.tasks.countdown import held_out
from tests import letters
from tests.cases import CASES, GRAFT, NO_GRAFT, dialect_of, many, seen_in, session_of
from tests.house import scheduling_ahead

EVERY = bool(os.environ.get("ALL_FAMILIES"))
ON_TORCH = list(FAMILIES) if EVERY else ["qwen3", "llama", "gemma3"]
ON_VLLM = ["qwen3", "qwen2", "llama", "mistral"] if EVERY else ["qwen3"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """``models(family, dialect...)``: a folder with a random model that writes these dialects, and its reference."""
    made = {}

    def make(family, *dialects):
        if (family, dialects) not in made:
            seed = 1 if family == "qwen2" else 2  # of those that were tried, one that joins often in every dialect
            folder = build(str(tmp_path_factory.mktemp("model")), family, list(dialects), seed)
            made[family, dialects] = folder, load_reference(folder)
        return made[family, dialects]

    return make


@pytest.mark.parametrize("family", ON_TORCH)
@pytest.mark.parametrize("case", CASES)
def test_the_torch_engine_is_exact(models, case, family):
    folder, reference = models(family, dialect_of(case))
    with ParallelLLM(folder, engine="torch", dialect=dialect_of(case)) as llm:
        traces = many(llm, case, 24)
        assert llm.kv_is_free()
    seen = seen_in(traces)
    assert seen["joined"] > 3 or (case == "ssft" and seen["forks"] == 24)  # there a root ends at its join
    assert seen["nested"] or not case.startswith(("spawn_join", "multiverse", "npr"))
    assert seen["taken_back"] or case.startswith(("spawn_join", "ssft", "dc_cot", "async_think"))
    assert max(compare(reference, trace).largest for trace in traces) < BOUND


@pytest.mark.parametrize("family", ON_VLLM)
@pytest.mark.parametrize("dialects", [("spawn_join", "apr", "async_think"), ("threadweaver", "parallel_r1", "dc_cot")])
def test_vllm_is_exact(models, dialects, family):
    folder, reference = models(family, *dialects)
    with ParallelLLM(folder, dialect=dialects[0]) as llm:
        for case in (case for case in NO_GRAFT if dialect_of(case) in dialects):
            traces = many(llm, case, 32)
            assert seen_in(traces)["joined"], case
            assert max(compare(reference, trace).largest for trace in traces) < BOUND, case


def stopped(traces, llm, case):
    """How often a thread stopped: where a step ran ahead, KV of its last token was there, and is computed once more for
    its logits if the thread goes on with nothing written."""
    dialect = session_of(llm, case)[0].dialect
    stops = {token for depth in (0, 1) for token in dialect.stops(depth).ids}
    spans = [span for trace in traces for thread in trace.threads for span in thread.spans]
    return sum(token in stops for span in spans if span.origin == "sampled" for token in span.ids)


@pytest.mark.parametrize(("family", "compiled"), [*((family, False) for family in ON_VLLM), *[("qwen3", True)] * EVERY])
@pytest.mark.parametrize("dialects", [("multiverse", "parathinker"), ("npr", "parallel_r1")])
def test_vllm_is_exact_when_it_grafts(models, dialects, family, compiled):
    """``compiled`` also schedules ahead: together they are what GPUs run by default."""
    folder, reference = models(family, *dialects)
    with contextlib.ExitStack() as stack:
        if compiled:
            stack.enter_context(scheduling_ahead())
        llm = stack.enter_context(ParallelLLM(folder, dialect=dialects[0], compile=compiled or None))
        for case in (case for case in GRAFT if dialect_of(case) in dialects):
            traces = many(llm, case, 48)
            assert llm.kv_is_free(), case
            seen = seen_in(traces)
            assert seen["joined"] > 3, case
            assert seen["taken_back"], case
            assert seen["nested"] or case.startswith("para"), case
            again = sum(trace.ledger.recomputed_tokens for trace in traces)
            assert again <= (stopped(traces, llm, case) if compiled else 0), case
            assert max(compare(reference, trace).largest for trace in traces) < BOUND, case


def test_what_grafts_is_known_before_an_engine_starts():
    assert [case for case in CASES if grafts(dialect_of(case), **CASES[case])] == GRAFT


def test_vllm_says_why_it_cannot_graft(tmp_path):
    folder = letters.build("Mistral", tmp_path, sliding_window=80, head_dim=32)
    with pytest.raises(InputError, match="attend to a window only; use engine='torch'"):
        asyncio.run(start("vllm", folder, graft=True))


@pytest.mark.parametrize("version", [(0, 25, 1), (0, 33, 0), (1, 0, 0)])
def test_a_vllm_that_was_not_tested_is_refused(tmp_path, monkeypatch, version):
    monkeypatch.setattr("vllm.__version_tuple__", version)
    with pytest.raises(InputError, match=r"grafting is known to be exact on 0.26 to 0.32 only; use engine='torch'"):
        asyncio.run(start("vllm", letters.build("Llama", tmp_path), graft=True))


class WrongEngine:
    """An engine that is wrong by one thing for every child: a position, an interval of its mask, or another's KV."""

    def __init__(self, engine, fault=""):
        self.engine, self.fault, self.neighbour = engine, fault, None

    def __getattr__(self, name):
        return getattr(self.engine, name)

    async def generate(self, request, on_tokens=None):
        if "." in request.label and request.held:
            if self.fault == "position":
                request = replace(request, positions=[place + 1 for place in request.positions])
            if self.fault == "interval":
                own = request.held[0]
                request = replace(request, ids=request.ids[1:], positions=request.positions[1:], held=(own[1:],))
            if self.fault == "neighbour":
                other = self.neighbour
                self.neighbour = request.held[0][:]  # of its own: that one may be released by then
                if other is not None and len(other) == len(self.neighbour):
                    request = replace(request, held=(other,))
        return await self.engine.generate(request, on_tokens)


@pytest.mark.parametrize("fault", ["position", "interval", "neighbour"])
def test_an_engine_that_is_wrong_is_seen(models, fault):
    folder, reference = models("qwen3", "parallel_r1")
    with ParallelLLM(folder, engine="torch", dialect="parallel_r1") as llm:
        traces = many(llm, "parallel_r1, unseen", 24, WrongEngine(llm.engine, fault))
    assert max(compare(reference, trace).largest for trace in traces) > 10 * BOUND


class FullEngine(WrongEngine):
    """An engine that has no room for KV of children of children once they have ended."""

    async def generate(self, request, on_tokens=None):
        if request.label.count(".") > 1 and request.max_tokens == 0:
            raise EngineError(f"no room for {request.label}")
        return await self.engine.generate(request, on_tokens)


def test_threads_that_would_see_kv_that_was_never_computed_name_the_cause(models):
    folder, _ = models("qwen3", "multiverse")
    with ParallelLLM(folder, engine="torch", dialect="multiverse") as llm:
        traces = many(llm, "multiverse", 24, FullEngine(llm.engine))
        assert llm.kv_is_free()
    failed = {
        thread.label: thread.stop_reason for trace in traces for thread in trace.threads if thread.status == "failed"
    }
    assert failed["0.0"].startswith("no room for 0.0.")
    assert failed["0"].startswith("KV below thread 0.")
    assert "was never computed: no room for 0." in failed["0"]


@pytest.mark.parametrize("fault", ["position", "interval"])
def test_a_layout_that_is_wrong_is_seen(models, fault):
    folder, reference = models("qwen3", "multiverse")
    with ParallelLLM(folder, engine="torch", dialect="multiverse") as llm:
        traces = [trace for trace in many(llm, "multiverse", 24) if seen_in([trace])["joined"]]
    for trace in traces:
        child = trace.children(trace.root.forks[0])[0]
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

    ids = countdown.generate(str(held_out(1)[0]))[0].root.spans[0].ids * 3
    with torch.no_grad():
        logprobs = load_reference(countdown.engine.model)(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    wanted = logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert countdown.score(ids) == pytest.approx(wanted, abs=BOUND)
