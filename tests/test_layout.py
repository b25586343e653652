import tracemalloc

import numpy as np
from hypothesis import given, settings

from parallel_reason.trace import Fork, Span, Thread, Trace, from_json, layout, tally
from tests.strategies import depth_first, read, readings, traces


def lineages(trace, thread, above=()):
    """Under each label, the ``(ancestor, fork)`` pairs through which the thread sees tokens that are not its own."""
    found = {thread.label: above}
    for fork in thread.forks:
        for child in trace.children(fork):
            found |= lineages(trace, child, ((thread.label, fork.at), *above) if fork.shares_prefix else ())
    return found


def sees(one, other, lineage):
    if other.owner == one.owner:
        return (other.span, other.place) <= (one.span, one.place)
    return any(other.owner == ancestor and other.span < at for ancestor, at in lineage[one.owner])


WILD = traces(depth=3, wild=True)


@settings(max_examples=150)
@given(WILD)
def test_under_every_join_rule_a_token_sees_and_stands_where_the_definition_says(trace):
    row, readings_of = layout(trace), readings(trace, trace.root)
    tokens = list(depth_first(trace))
    where = {token: index for index, token in enumerate(tokens)}
    wanted = np.zeros((len(tokens), len(tokens)), dtype=bool)
    for index, token in enumerate(tokens):
        sees, position = readings_of[token]
        wanted[index, [where[other] for other in sees]] = True
        assert row.positions[index] == position
        assert row.previous[index] == max((where[other] for other in sees if other != token), default=-1)
    np.testing.assert_array_equal(row.mask(), wanted)


@given(WILD)
def test_intervals_say_the_same_as_the_mask(trace):
    row = layout(trace)
    owner, table = row.intervals()
    assert table.shape[:1] + table.shape[2:] == (len(row.segments), 2)
    index = np.arange(len(row.ids))
    starts, stops = table[owner][:, :, 0, None], table[owner][:, :, 1, None]  # [tokens, intervals, 1]
    inside = ((starts <= index) & (index < stops)).any(axis=1)
    np.testing.assert_array_equal(inside & (index[None] <= index[:, None]), row.mask())
    for visible in table[..., :, :]:
        real = visible[visible[:, 0] < visible[:, 1]]
        assert (real[1:, 0] >= real[:-1, 1]).all()  # ascending, and none twice


def chapters(join):
    """32,000 tokens in 200 threads: a root that forks 20 times, and goes on after every fork."""
    spans, forks, children = [Span(ids=[1] * 1000, origin="prompt")], [], []
    for chapter in range(20):
        numbers = range(10 * chapter, 10 * chapter + 10)
        for number in numbers:
            text = [Span(ids=[2], origin="injected"), Span(ids=[3] * 149, origin="sampled")]
            children.append(Thread(label=f"0.{number}", parent=0, spans=text, status="finished"))
        forks.append(Fork(at=len(spans), join_rule=join, children=[1 + number for number in numbers]))
        spans += [Span(ids=[4] * 2, origin="injected"), Span(ids=[5] * 48, origin="sampled")]
    root = Thread(label="0", spans=spans, forks=forks, status="finished")
    return Trace(dialect="d", model="m", prompt="p", threads=[root, *children])


def test_a_long_trace_of_many_threads_takes_little_memory():
    for join in ("message", "relinearise", "graft"):
        trace = chapters(join)
        tracemalloc.start()
        row = layout(trace)
        owner, table = row.intervals()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (len(row.ids), len(trace.threads)) == (32_000, 201)
        assert owner.shape == (32_000,)
        assert peak < 20e6
        assert table.nbytes < 1e6


@given(WILD)
def test_every_token_is_laid_out_once_depth_first(trace):
    row, tokens = layout(trace), list(depth_first(trace))
    assert row.ids.tolist() == [token.id for token in tokens]
    assert row.sampled.tolist() == [token.origin == "sampled" for token in tokens]
    assert len(set(tokens)) == sum(len(span.ids) for thread in trace.threads for span in thread.spans)


@given(WILD)
def test_logprobs_are_the_engines_and_nan_where_it_gave_none(trace):
    spans = {(thread.label, place): span for thread in trace.threads for place, span in enumerate(thread.spans)}
    wanted = [
        spans[token.owner, token.span].logprobs[token.place] if spans[token.owner, token.span].logprobs else np.nan
        for token in depth_first(trace)
    ]
    np.testing.assert_array_equal(layout(trace).logprobs, np.array(wanted, dtype=float))


@given(traces())
def test_a_token_sees_its_threads_earlier_tokens_and_its_ancestors_up_to_the_fork(trace):
    tokens, lineage = list(depth_first(trace)), lineages(trace, trace.root)
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
    where = {token: index for index, token in enumerate(depth_first(trace))}
    for thread, text in read(trace, trace.root):
        for length, token in enumerate(text, start=1):
            if token.owner == thread.label:
                seen = mask[where[token]].nonzero()[0]
                seen = seen[np.argsort(row.positions[seen])]
                assert row.ids[seen].tolist() == [earlier.id for earlier in text[:length]]
                assert row.positions[seen].tolist() == list(range(length))


@given(WILD)
def test_segments_are_the_whole_row_in_order_each_of_one_thread(trace):
    row, tokens = layout(trace), list(depth_first(trace))
    labels = [thread.label for thread in trace.threads]
    owners = [labels[segment.thread] for segment in row.segments for _ in range(segment.start, segment.stop)]
    assert owners == [token.owner for token in tokens]
    assert [segment.start for segment in row.segments] == [0, *(segment.stop for segment in row.segments)][:-1]


def test_a_trace_without_tokens_has_an_empty_row():
    row = layout(Trace(dialect="d", model="m", prompt="", threads=[Thread(label="0", status="finished")]))
    assert row.mask().shape == (0, 0)
    assert len(row.ids) == len(row.positions) == len(row.previous) == 0


def nested(depth):
    """A chain of threads, each the only child of the one before."""
    threads = []
    for level in range(depth + 1):
        forks = [Fork(at=1, join_rule="graft", children=[level + 1])] if level < depth else []
        spans = [Span(ids=[level], origin="sampled"), Span(ids=[7], origin="sampled")]
        label = ".".join(["0"] * (level + 1))
        threads.append(
            Thread(label=label, parent=level - 1 if level else None, spans=spans, forks=forks, status="finished")
        )
    return Trace(dialect="d", model="m", prompt="", threads=threads)


def test_depth_is_bounded_by_memory_alone():
    trace = nested(1000)
    row = layout(trace)
    assert row.positions.tolist() == list(range(2002))
    assert row.longest_context == 2002
    assert from_json(trace.to_json()) == trace
    assert tally(trace.threads).critical_path_tokens == 2002


@given(WILD)
def test_the_longest_context_is_the_most_that_a_token_sees(trace):
    row = layout(trace)
    assert row.longest_context == (row.mask().sum(axis=1).max() if len(row.ids) else 0)
