import numpy as np
from hypothesis import given

from parallel_reason.layout import layout
from parallel_reason.trace import Thread, Trace
from tests.strategies import depth_first, read, traces


def lineages(thread, above=()):
    """Under each label, the ``(ancestor, fork)`` pairs through which the thread sees tokens that are not its own."""
    found = {thread.label: above}
    for fork in thread.forks:
        for child in fork.children:
            found |= lineages(child, ((thread.label, fork.at), *above) if fork.shares_prefix else ())
    return found


def sees(one, other, lineage):
    if other.owner == one.owner:
        return (other.span, other.place) <= (one.span, one.place)
    return any(other.owner == ancestor and other.span < at for ancestor, at in lineage[one.owner])


@given(traces())
def test_every_token_is_laid_out_once_depth_first(trace):
    row, tokens = layout(trace), list(depth_first(trace.root))
    assert row.ids.tolist() == [token.id for token in tokens]
    assert row.sampled.tolist() == [token.origin == "sampled" for token in tokens]
    assert len(set(tokens)) == sum(len(span.ids) for thread in trace.threads for span in thread.spans)


@given(traces())
def test_logprobs_are_the_engines_and_nan_where_it_gave_none(trace):
    spans = {(thread.label, place): span for thread in trace.threads for place, span in enumerate(thread.spans)}
    wanted = [
        spans[token.owner, token.span].logprobs[token.place] if spans[token.owner, token.span].logprobs else np.nan
        for token in depth_first(trace.root)
    ]
    np.testing.assert_array_equal(layout(trace).logprobs, np.array(wanted, dtype=float))


@given(traces())
def test_a_token_sees_its_threads_earlier_tokens_and_its_ancestors_up_to_the_fork(trace):
    tokens, lineage = list(depth_first(trace.root)), lineages(trace.root)
    wanted = [[sees(one, other, lineage) for other in tokens] for one in tokens]
    assert layout(trace).mask().tolist() == wanted


@given(traces())
def test_positions_count_the_tokens_seen_before_and_previous_is_the_newest_of_them(trace):
    row = layout(trace)
    for index, seen in enumerate(row.mask()):
        before = [other for other in seen.nonzero()[0] if other != index]
        assert row.positions[index] == len(before)
        assert row.previous[index] == max(before, key=lambda other: row.positions[other], default=-1)


@given(traces())
def test_every_thread_cut_out_by_its_mask_is_the_plain_text_it_saw(trace):
    row = layout(trace)
    mask = row.mask()
    where = {token: index for index, token in enumerate(depth_first(trace.root))}
    for thread, text in read(trace.root):
        for length, token in enumerate(text, start=1):
            if token.owner == thread.label:
                seen = mask[where[token]].nonzero()[0]
                seen = seen[np.argsort(row.positions[seen])]
                assert row.ids[seen].tolist() == [earlier.id for earlier in text[:length]]
                assert row.positions[seen].tolist() == list(range(length))


@given(traces())
def test_segments_are_the_whole_row_in_order_each_of_one_thread(trace):
    row, tokens = layout(trace), list(depth_first(trace.root))
    labels = [thread.label for thread in trace.threads]
    owners = [labels[segment.thread] for segment in row.segments for _ in range(segment.start, segment.stop)]
    assert owners == [token.owner for token in tokens]
    assert [segment.start for segment in row.segments] == [0, *(segment.stop for segment in row.segments)][:-1]


def test_a_trace_without_tokens_has_an_empty_row():
    row = layout(Trace(dialect="d", model="m", prompt="", root=Thread(label="0")))
    assert row.mask().shape == (0, 0)
    assert len(row.ids) == len(row.positions) == len(row.previous) == 0
