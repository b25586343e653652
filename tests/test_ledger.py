from itertools import chain, product

from hypothesis import given

from parallel_reason.ledger import critical_path, tally
from parallel_reason.trace import Fork, Span, Thread
from tests.strategies import depth_first, threads


def chains(thread):
    """Every way down the tree: the thread itself and, for each of its forks, one chain through one of its children."""
    below = [list(chain.from_iterable(map(chains, fork.children))) or [[]] for fork in thread.forks]
    for choice in product(*below):
        yield [thread, *chain.from_iterable(choice)]


def sampled(thread):
    return sum(token.owner == thread.label and token.origin == "sampled" for token in depth_first(thread))


@given(threads())
def test_the_critical_path_is_the_longest_of_all_chains(root):
    assert critical_path(root) == max(sum(map(sampled, one)) for one in chains(root))


def test_a_fork_counts_its_longest_child_and_forks_in_a_row_add_up():
    def wrote(label, tokens, *forks):
        spans = [Span(ids=[1] * 3, origin="injected"), Span(ids=[2] * tokens, origin="sampled")]
        forks = [Fork(at=2, join="message", children=list(children)) for children in forks]
        return Thread(label=label, parent=label.rpartition(".")[0] or None, spans=spans, forks=forks)

    deep = wrote("0.1", 1, (wrote("0.1.0", 9), wrote("0.1.1", 4)))
    root = wrote("0", 5, (wrote("0.0", 8), deep), (wrote("0.2", 2), wrote("0.3", 7)))
    assert critical_path(root) == 5 + (1 + 9) + 7
    assert tally(root).acceleration == 36 / 22


@given(threads(depth=0))
def test_without_a_fork_nothing_is_accelerated(root):
    assert tally(root).acceleration == 1.0


@given(threads(detailed=True))
def test_tally_equals_naive_counts(root):
    tokens = list(depth_first(root))
    every, waiting = [], [root]
    while waiting:
        every.append(waiting.pop())
        waiting += [child for fork in every[-1].forks for child in fork.children]
    ledger = tally(root, 2.5, 0.5, 7)
    for origin in ("sampled", "injected", "prompt"):
        assert getattr(ledger, f"{origin}_tokens") == [token.origin for token in tokens].count(origin)
    for name in ("prefilled_tokens", "cached_tokens", "recomputed_tokens"):
        assert getattr(ledger, name) == sum(getattr(thread, name) for thread in every)
    assert ledger.threads == len({thread.label for thread in every})
    assert ledger.forks == sum(len(thread.forks) for thread in every)
    assert ledger.malformed_forks == sum(len(thread.malformed) for thread in every)
    assert ledger.failed_threads == len([thread for thread in every if thread.status == "failed"])
    assert (ledger.wall_s, ledger.first_token_s, ledger.kv_blocks) == (2.5, 0.5, 7)
    longest = max(sum(map(sampled, one)) for one in chains(root))
    assert ledger.acceleration == (ledger.sampled_tokens / longest if longest else 1.0)
    assert ledger.acceleration >= 1.0
