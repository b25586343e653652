"""Strategies on vLLM, with the embedded model: charged what the engine sampled, and what they stop is free at once."""

import pytest

from parallel_reason import Limits
from parallel_reason.strategies import find, program


def letter(text):
    """Any text is an answer: where the model goes is not the point here."""
    return text[-6:] or None


@pytest.mark.parametrize(
    "name",
    [
        "sc:n=6",
        "short_mk:m=2,k=6",
        "first_consensus:n=6,threshold=0.6",
        "esc:n=6,window=2",
        "parallel_probe:n=6,every=8,warm_up=1,patience=1,stable=4",
        "prune_and_fork:n=6,k=2,every=8,rounds=3",
        "deepconf_online:n=6,warm_up=2,batch=2,window=8,every=8,keep=0.3",
    ],
)
def test_a_strategy_on_vllm_is_charged_right_and_leaves_nothing(countdown, name, monkeypatch):
    sampled, generate = [], countdown.engine.generate

    async def counted(request, on_tokens=None):
        output = await generate(request, on_tokens)
        sampled.append(len(output.ids))
        return output

    monkeypatch.setattr(countdown.engine, "generate", counted)
    made = program(find(name), answer_of=letter, probe_text="=", probe_tokens=4)
    sampling = {"temperature": 1.0, "seed": 3, "logprobs": 4, "max_tokens": 40}
    traces = countdown.run(made, ["22,26,31,53=27", "3,7,11,25=46"], sampling, Limits(threads=64))
    assert {trace.status for trace in traces} == {"finished"}, traces[0].stop_reason
    assert sum(trace.ledger.sampled_tokens for trace in traces) == sum(sampled) > 0
    assert countdown._loop.wait(countdown.session.kv_is_free())
