"""Plain rows beside packed ones, and beside the most naive reading of a trace."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings

from parallel_reason import Fork, InputError, Span, Thread, Trace
from parallel_reason.tasks import TaskProblem
from rl.plain_rows import plain_rows, slime_samples, verl_outputs
from rl.rollouts import Rollout
from rl.rows import IGNORED, collate, pack
from tests.strategies import depth_first, read, traces
from tests.test_rows import model


def one_causal_forward_each(rows):
    """The log-prob of every trained token, each row by itself."""
    found = []
    for row in rows:
        logprobs = model()(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        places = torch.tensor(row.trained).nonzero()[:, 0]
        found.append(logprobs[places - 1, torch.tensor(row.ids)[places]])
    return torch.cat(found) if found else torch.empty(0)


def packed_forward(trace):
    batch = collate([pack(trace)])
    labels = batch.pop("shift_labels")[0]
    places = (labels != IGNORED).nonzero()[:, 0]
    return model()(**batch).logits[0].log_softmax(-1)[places, labels[places]]


@given(traces(runnable=True))
def test_every_sampled_token_is_trained_once_behind_what_its_thread_saw(trace):
    rows = plain_rows(trace)
    texts = {thread.label: [token.id for token in text] for thread, text in read(trace, trace.root)}
    trained = Counter()
    for row in rows:
        assert row.ids == texts[row.label][: len(row.ids)]
        trained.update((row.label, token) for token, yes in zip(row.ids, row.trained, strict=True) if yes)
    assert trained == Counter((t.owner, t.id) for t in depth_first(trace) if t.origin == "sampled")


@settings(max_examples=15)
@given(traces(runnable=True))
def test_plain_rows_have_the_loss_and_the_gradient_of_the_packed_row(trace):
    gradients, losses = [], []
    for logprobs in (packed_forward(trace), one_causal_forward_each(plain_rows(trace))):
        if not len(logprobs):
            return
        model().zero_grad()
        (-logprobs.mean()).backward()
        losses.append(logprobs.mean().detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model().parameters() if p.grad is not None]))
    assert torch.allclose(*losses, atol=1e-5)
    assert torch.allclose(*gradients, atol=1e-5, rtol=1e-3)


def example():
    """A root that takes back its last token, and two children whose texts it copies; all with log-probs."""

    def sampled(*ids, **options):
        return Span(ids=list(ids), origin="sampled", logprobs=[-0.5] * len(ids), policy_version=2, **options)

    child = [Thread(label=f"0.{k}", parent=0, spans=[Span(ids=[20], origin="injected"), sampled(30 + k, 31)],
                    status="finished") for k in range(2)]  # fmt: skip
    root = Thread(
        label="0",
        spans=[Span(ids=[1, 2], origin="prompt"), sampled(3, 4), Span(ids=[20, 31, 31], origin="copied"),
               Span(ids=[5], origin="injected"), sampled(6, 7), Span(ids=[8], origin="injected", taken_back=1),
               sampled(9)],
        forks=[Fork(at=2, join_rule="relinearise", children=[1, 2])], status="length",
    )  # fmt: skip
    return Trace(dialect="d", model="m", prompt="p", threads=[root, *child])


def test_a_relinearised_join_and_a_token_taken_back_are_written_out():
    rows = plain_rows(example())
    assert [(row.label, row.ids, row.trained.index(True)) for row in rows] == [
        ("0", [1, 2, 3, 4, 20, 30, 31, 20, 31, 31, 5, 6, 7], 2),
        ("0", [1, 2, 3, 4, 20, 30, 31, 20, 31, 31, 5, 6, 8, 9], 13),
        ("0.0", [1, 2, 3, 4, 20, 30, 31], 5),
        ("0.1", [1, 2, 3, 4, 20, 31, 31], 5),
    ]
    assert sum(sum(row.trained) for row in rows) == 9


def test_verl_and_slime_are_given_rows_of_one_length():
    rollout = Rollout(TaskProblem("k", "t", None), example(), True, {"correctness": 1.0, "format": 0.5})
    for output in verl_outputs(rollout):
        assert len(output["response_ids"]) == len(output["response_mask"]) == len(output["response_logprobs"])
        assert output["reward_score"] == 1.5
    assert verl_outputs(rollout)[-1]["extra_fields"]["thread"] == "0"
    for sample in slime_samples(rollout, 0, 3):
        assert sample["response_length"] == len(sample["loss_mask"]) == len(sample["rollout_log_probs"])
        assert sample["tokens"][-sample["response_length"] :]
        assert sample["weight_versions"] == ["2"]
        assert sample["metadata"]["rollout_id"] == rollout.trace.id
    assert {sample["status"] for sample in slime_samples(rollout, 0, 3)} == {"completed", "truncated"}


def test_a_graft_is_refused():
    grafted = example().model_copy(deep=True)
    grafted.root.forks[0].join_rule = "graft"
    with pytest.raises(InputError, match="joins by graft"):
        plain_rows(grafted)
