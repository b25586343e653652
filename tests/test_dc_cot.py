"""DC-CoT to the letter: three workers, laid end to end under plain causal attention, as its rollouts are."""

import pytest

from benchmarks.grammars import tokenizer_of
from parallel_reason import Limits, layout
from tests.written import scripted, written

TEXTS = {
    "0": ["<think>a<spawn_workers>", "b</think><answer> 4 </answer><eos>"],
    "0.0": ["x</worker_1>"],
    "0.1": ["yyy</worker_2>"],
    "0.2": ["z</worker_3>"],
}


def test_workers_are_laid_end_to_end_with_nothing_between():
    trace = scripted("dc_cot", TEXTS)
    assert written(trace) == {
        "0": "<think>a<spawn_workers>(<worker_2>yyy</worker_2>)(<worker_3>z</worker_3>){</spawn_workers>}"
        "b</think><answer> 4 </answer><eos>",
        "0.0": "{<worker_1>}x</worker_1>",
        "0.1": "{<worker_2>}yyy</worker_2>",
        "0.2": "{<worker_3>}z</worker_3>",
    }
    row = layout(trace)
    seen, tokens = row.mask()[-1], tokenizer_of(["dc_cot"])
    workers = "<worker_1>x</worker_1><worker_2>yyy</worker_2><worker_3>z</worker_3>"
    text = f"ab<think>a<spawn_workers>{workers}</spawn_workers>b</think><answer> 4 </answer><eos>"
    assert tokens.decode(row.ids[seen].tolist()) == text
    assert row.positions[seen].tolist() == list(range(seen.sum()))
    starts = row.positions[row.ids == tokens.convert_tokens_to_ids("<worker_2>")]
    assert starts[0] == row.positions[row.ids == tokens.convert_tokens_to_ids("<spawn_workers>")][0] + 1
    trained = tokens.decode(row.ids[row.sampled].tolist())
    assert trained == "<think>a<spawn_workers>x</worker_1>yyy</worker_2>z</worker_3>b</think><answer> 4 </answer><eos>"
    assert trace.answer == "4"


@pytest.mark.parametrize(
    ("worker", "joined"),
    [
        ("y<eos>", "y<eos>"),  # its end of text stays, as in the released rollouts
        ("y" * 99, "y" * 30),  # cut by a bound
        ("y</worker_1>y</worker_3>y</worker_2>", "y</worker_1>y</worker_3>y</worker_2>"),  # ends at its own tag only
        ("y<spawn_workers>y</worker_2>", "y<spawn_workers>y</worker_2>"),  # workers do not fork
        ("", "<eos>"),
    ],
)
def test_a_worker_is_joined_as_it_is(worker, joined):
    trace = scripted("dc_cot", TEXTS | {"0.1": [worker]}, Limits(tokens_per_thread=30))
    assert f"(<worker_2>{joined})(<worker_3>z</worker_3>)" in written(trace)["0"]
    assert written(trace)["0.0"] == "{<worker_1>}x</worker_1>"
    assert trace.status == "finished"


def test_a_root_may_fork_again_as_often_as_the_limits_say():
    root = ["<spawn_workers>"] * 5
    trace = scripted("dc_cot", {"0": root}, Limits(forks=4))
    assert (trace.ledger.forks, trace.stop_reason) == (4, "limits.forks=4")
