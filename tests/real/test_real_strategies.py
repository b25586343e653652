"""Every strategy with a real pretrained model on vLLM: it runs, is charged right, keeps its budget and leaves no KV."""

import pytest

from parallel_reason import Limits, ParallelLLM
from parallel_reason.strategies import STRATEGIES, find, program
from tests.test_strategies_need_a_model import SMALL

pytestmark = pytest.mark.real

PARAMETERS = SMALL | {
    "no_thinking": "n=3",
    "sc": "n=4",
    "shortest": "k=4",
    "short_mk": "m=2,k=4",
    "asc": "n=4",
    "esc": "n=4,window=2",
    "sac": "n=4,every=8,patience=2",
    "parallel_probe": "n=4,every=8,warm_up=1,patience=1,stable=2",
    "deep_prune": "n=4,prefix=8",
    "first_consensus": "n=4,threshold=0.6",
}
SAMPLING = {"temperature": 0.7, "seed": 3, "logprobs": 4, "max_tokens": 24}
PROMPT = [{"role": "user", "content": "What is 6 * 7?"}]


@pytest.fixture(scope="module")
def llm(text_model):
    with ParallelLLM(text_model, dialect="none", dtype="bfloat16", context=2048) as llm:
        yield llm


def number(text):
    """The last number in a text."""
    return next((word.strip(".,") for word in reversed(text.split()) if word.strip(".,").isdigit()), None)


def run(llm, name, monkeypatch, budget=None):
    """The trace of a strategy, and how many tokens the engine sampled for it."""
    sampled, generate = [], llm.engine.generate

    async def counted(request, on_tokens=None):
        output = await generate(request, on_tokens)
        sampled.append(len(output.ids))
        return output

    parameters = PARAMETERS.get(name)
    with monkeypatch.context() as patch:
        patch.setattr(llm.engine, "generate", counted)
        made = program(find(f"{name}:{parameters}" if parameters else name), answer_of=number, budget=budget)
        [trace] = llm.run(made, [PROMPT], SAMPLING, Limits(threads=64), chat={})
    assert trace.status == "finished", trace.stop_reason
    assert llm.kv_is_free()
    return trace, sum(sampled)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_charged_right_and_keeps_its_budget(llm, name, monkeypatch):
    trace, sampled = run(llm, name, monkeypatch)
    assert trace.ledger.sampled_tokens == sampled > 0
    most = max(8, sampled // 2)
    trace, sampled = run(llm, name, monkeypatch, {"total_tokens": most})
    assert trace.ledger.sampled_tokens == sampled

    assert 0 < sampled <= most
