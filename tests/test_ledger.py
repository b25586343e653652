from itertools import chain, product

import pytest
from hypothesis import given

from parallel_reason.trace import Fork, Ledger, Span, Thread, aggregate, tally
from parallel_reason.trace.ledger import critical_paths, sampled_by_step
from tests.strategies import depth_first, traces


def chains(trace, thread):
    """Every way down the tree: the thread itself and, for each of its forks, one chain through one of its children."""
    below = [[one for child in trace.children(fork) for one in chains(trace, child)] or [[]] for fork in thread.forks]
    for choice in product(*below):
        yield [thread, *chain.from_iterable(choice)]


def sampled(thread):
    return sum(len(span.ids) for span in thread.spans if span.origin == "sampled")


@given(traces())
def test_the_critical_path_is_the_longest_of_all_chains(trace):
    paths = critical_paths(trace.threads)
    for thread, path in zip(trace.threads, paths, strict=True):
        assert path == max(sum(map(sampled, one)) for one in chains(trace, thread))


def wrote(label, tokens, parent=None, forks=()):
    spans = [Span(ids=[1] * 3, origin="injected"), Span(ids=[2] * tokens, origin="sampled")]
    return Thread(label=label, parent=parent, spans=spans, forks=list(forks), status="finished")


def fork(*children, waited=True):
    return Fork(at=2, join_rule="message", children=list(children), waited=waited)


def test_a_fork_counts_its_longest_child_and_forks_in_a_row_add_up():
    threads = [
        wrote("0", 5, forks=[fork(1, 2), fork(5, 6)]),
        wrote("0.0", 8, 0), wrote("0.1", 1, 0, [fork(3, 4)]), wrote("0.1.0", 9, 2), wrote("0.1.1", 4, 2),
        wrote("0.2", 2, 0), wrote("0.3", 7, 0),
    ]  # fmt: skip
    assert critical_paths(threads) == [5 + (1 + 9) + 7, 8, 1 + 9, 9, 4, 2, 7]
    assert tally(threads).acceleration == 36 / 22


def test_a_fork_that_its_parent_did_not_wait_for_is_not_on_its_critical_path():
    threads = [wrote("0", 5, forks=[fork(1, waited=False)]), wrote("0.0", 8, 0)]
    assert critical_paths(threads) == [5, 8]


def run_in_step(trace):
    """How many threads sample in each step, by letting all of them run: a token a step, forks and joins at once."""
    work = {}
    for thread in trace.threads:
        forks = {place: [fork for fork in thread.forks if fork.at == place] for place in range(len(thread.spans) + 1)}
        work[thread.label] = [
            each
            for place, span in enumerate([*thread.spans, None])
            for each in [*forks[place], *([None] * len(span.ids) if span and span.origin == "sampled" else [])]
        ]
    runs, waits, counts = [trace.root.label], {}, []
    while True:
        moved = True
        while moved:  # forks, and joins of those whose children have ended
            moved = False
            for label in list(runs):
                if work[label] and work[label][0] is not None and all(not work[one] for one in waits.get(label, ())):
                    one = work[label].pop(0)
                    children = [child.label for child in trace.children(one)]
                    runs += children
                    waits[label] = children if one.waited else []
                    waits[label] = [below for child in waits[label] for below in labels_below(trace, child)]
                    moved = True
        sampling = [label for label in runs if work[label] and all(not work[one] for one in waits.get(label, ()))]
        if not sampling:
            return counts
        counts.append(len(sampling))
        for label in sampling:
            work[label].pop(0)


def labels_below(trace, label):
    """A thread and all below it."""
    return [thread.label for thread in trace.threads if thread.label == label or thread.label.startswith(label + ".")]


@given(traces())
def test_the_tokens_of_each_step_are_those_of_a_run_in_step(trace):
    steps = sampled_by_step(trace.threads)
    assert steps == run_in_step(trace)
    assert sum(steps) == tally(trace.threads).sampled_tokens
    assert len(steps) == tally(trace.threads).critical_path_tokens


def test_a_thread_that_samples_on_while_its_children_run_waits_for_the_longer():
    spans = [Span(ids=[2] * tokens, origin="sampled") for tokens in (2, 3, 1)]
    beside = Fork(at=1, joined_at=2, join_rule="message", children=[1, 2])
    root = Thread(label="0", spans=spans, forks=[beside], status="finished")
    children = [
        Thread(label=f"0.{number}", parent=0, spans=[Span(ids=[2] * tokens, origin="sampled")], status="finished")
        for number, tokens in enumerate((1, 5))
    ]
    assert sampled_by_step([root, *children]) == [1, 1, 3, 2, 2, 1, 1, 1]
    probe = Fork(at=1, waited=False, join_rule="message", children=[1, 2])
    aside = Thread(label="0", spans=spans, forks=[probe], status="finished")
    assert sampled_by_step([aside, *children]) == [1, 1, 3, 2, 2, 2, 1]


@given(traces(depth=0))
def test_without_a_fork_nothing_is_accelerated(trace):
    assert tally(trace.threads).acceleration == 1.0


@given(traces(detailed=True))
def test_tally_equals_naive_counts(trace):
    tokens = list(depth_first(trace))
    ledger = tally(trace.threads, 2.5, 0.5, 7)
    for origin in ("sampled", "injected", "prompt"):
        assert getattr(ledger, f"{origin}_tokens") == [token.origin for token in tokens].count(origin)
    for name in ("prefilled_tokens", "cached_tokens", "recomputed_tokens"):
        counts = [getattr(thread, name) for thread in trace.threads]
        assert getattr(ledger, name) == (None if None in counts else sum(counts))
    assert ledger.threads == len({thread.label for thread in trace.threads})
    assert ledger.forks == sum(len(thread.forks) for thread in trace.threads)
    assert ledger.malformed_forks == sum(len(thread.malformed) for thread in trace.threads)
    assert ledger.failed_threads == len([thread for thread in trace.threads if thread.status == "failed"])
    assert (ledger.wall_s, ledger.first_token_s, ledger.kv_blocks) == (2.5, 0.5, 7)
    longest = max(sum(map(sampled, one)) for one in chains(trace, trace.root))
    assert ledger.acceleration == (ledger.sampled_tokens / longest if longest else 1.0)
    assert ledger.acceleration >= 1.0


def test_traces_together_have_both_accelerations():
    """Two traces whose ratios are 4 and 1: the mean is 2.5, and the long one decides the ratio of sums."""
    short = Ledger(sampled_tokens=40, critical_path_tokens=10, acceleration=4.0, forks=1, prefilled_tokens=10)
    long = Ledger(sampled_tokens=960, critical_path_tokens=960, prefilled_tokens=30, cached_tokens=20)
    both = aggregate([short, long])
    assert both.mean_acceleration == 2.5
    assert both.acceleration_of_sums == pytest.approx(1000 / 970)
    assert (both.traces, both.forked, both.malformed, both.cached_share) == (2, 1, 0, 0.5)
    unknown = aggregate([short, Ledger(cached_tokens=None)])
    assert (unknown.cached_tokens, unknown.cached_share, unknown.prefilled_tokens) == (None, None, 10)
    assert aggregate([]).acceleration_of_sums == 1.0
