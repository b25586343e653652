from collections import Counter
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3Config, Qwen3ForCausalLM

from parallel_reason import Fork, Span, Thread, Trace, layout
from rl.rows import IGNORED, collate, pack
from tests.strategies import WORDS, depth_first, read, traces


@cache
def model():
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=WORDS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True,
        initializer_range=0.3,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).float().eval()


@torch.no_grad()
def packed(rows):
    """Log-probs of the labels of each row, from one forward of all rows."""
    batch = collate(rows)
    labels = batch.pop("shift_labels")
    logprobs = model()(**batch).logits.log_softmax(-1)
    found = []
    for row in range(len(rows)):
        places = (labels[row] != IGNORED).nonzero()[:, 0]
        found.append(logprobs[row, places, labels[row, places]])
    return found


@torch.no_grad()
def apart(trace):
    """Log-prob of every sampled token, depth first, from a plain causal forward of each thread's own text."""
    found = {}
    for thread, text in read(trace, trace.root):
        if not text:
            continue
        logprobs = model()(torch.tensor([[token.id for token in text]])).logits[0].log_softmax(-1)
        for place, token in enumerate(text):
            if token.owner == thread.label and token.origin == "sampled":
                found[token] = logprobs[place - 1, token.id]
    return torch.tensor([found[token] for token in depth_first(trace) if token in found])


def difference(rows, wanted):
    return max((float((a - b).abs().max()) for a, b in zip(packed(rows), wanted, strict=True) if len(b)), default=0.0)


def span(origin, *ids):
    return Span(ids=list(ids), origin=origin)


def fork(at, *children, **options):
    return Fork(at=at, join_rule="message", children=list(children), **options)


def thread(label, parent, spans, *forks):
    return Thread(label=label, parent=parent, spans=spans, forks=list(forks), status="finished")


def trace_of(*threads):
    return Trace(dialect="d", model="m", prompt="p", threads=list(threads))


def child(label, parent, *forks):
    header, text = span("injected", 6, len(label)), span("sampled", *range(20, 24))
    spans = [header, text, *([span("injected", 9, 10), span("sampled", 30, 31)] if forks else [])]
    return thread(label, parent, spans, *forks)


def nested():
    spans = [
        span("prompt", 100, 101, 102), span("sampled", 3, 103, 5),
        span("injected", 9, 104, 11), span("sampled", 105, 3, 5),
        span("injected", 9, 106, 11), span("sampled", 107, 108),
    ]  # fmt: skip
    return trace_of(
        thread("0", None, spans, fork(2, 1, 4), fork(4, 5, 6, shares_prefix=False)),
        child("0.0", 0, fork(2, 2, 3)),
        child("0.0.0", 1),
        child("0.0.1", 1),
        child("0.1", 0),
        child("0.2", 0),
        child("0.3", 0),
    )


@given(traces(runnable=True))
def test_every_sampled_token_is_a_label_once_and_no_other_token_is(trace):
    row = pack(trace)
    wanted = [token.id for token in depth_first(trace) if token.origin == "sampled"]
    assert [label for label in row["shift_labels"] if label != IGNORED] == wanted
    assert row["input_ids"] == [token.id for token in depth_first(trace)]


@given(st.lists(traces(runnable=True), min_size=1, max_size=3))
def test_a_batch_shows_each_row_what_its_layout_shows_and_padding_itself(batch):
    masks = collate([pack(trace) for trace in batch])["attention_mask"]
    for trace, mask in zip(batch, masks, strict=True):
        seen = torch.from_numpy(layout(trace).mask())
        padding = torch.eye(mask.shape[-1] - len(seen), dtype=torch.bool)
        assert torch.equal(mask[0], torch.block_diag(seen, padding))


def start(*children):
    return trace_of(thread("0", None, [span("prompt", 1)], fork(1, *range(1, len(children) + 1))), *children)


@pytest.mark.parametrize(
    "trace",
    [
        start(*(thread(f"0.{k}", 0, [span("sampled", 5 + k)]) for k in range(2))),
        trace_of(thread("0", None, [span("sampled", 1, 2, 3)])),
    ],
    ids=["two children that sample their first token", "a root without a prompt"],
)
def test_no_sampled_token_is_lost_or_trained_at_a_wrong_place_in_silence(trace):
    try:
        row = pack(trace)
    except ValueError:
        return
    wanted = Counter(token.id for token in depth_first(trace) if token.origin == "sampled")
    assert Counter(label for label in row["shift_labels"] if label != IGNORED) == wanted
    assert row["shift_labels"][-1] == IGNORED


@settings(max_examples=15)
@given(traces(runnable=True), traces(depth=1, runnable=True))
def test_one_packed_forward_gives_the_logprobs_of_every_thread_alone(one, other):
    assert difference([pack(one), pack(other)], [apart(one), apart(other)]) < 1e-5


def test_a_row_is_the_same_alone_and_beside_a_longer_one():
    short = start(child("0.0", 0))
    assert difference([pack(short)], [apart(short)]) < 1e-5
    assert difference([pack(short), pack(nested())], [apart(short), apart(nested())]) < 1e-5


def test_the_comparison_sees_a_position_that_is_off_by_one():
    wanted = [apart(nested())]
    assert difference([pack(nested())], wanted) < 1e-5
    ends = {text[-1] for _, text in read(nested(), nested().root)}  # what ends a thread predicts nothing
    for index, token in enumerate(depth_first(nested())):
        for by in (-1, 1) if token not in ends else ():
            row = pack(nested())
            row["position_ids"][index] += by
            assert difference([row], wanted) > 1e-4, (index, by)


def test_the_comparison_sees_every_interval_that_is_hidden():
    wanted, seen = [apart(nested())], 0
    for number, (_, _, visible) in enumerate(pack(nested())["segments"]):
        for interval in visible:
            row = pack(nested())
            row["segments"][number][2].remove(interval)
            assert difference([row], wanted) > 1e-4, (number, interval)
            seen += 1
    assert seen > 15
