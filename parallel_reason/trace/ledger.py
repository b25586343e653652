"""Every count and time of one trace, and of many traces together, each defined once.

Evaluations, rewards, the command line and pictures read these numbers; none of them counts tokens itself.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import itemgetter

from parallel_reason.record import Record
from parallel_reason.trace.thread import Thread


class Ledger(Record):
    """Counts are tokens unless they say otherwise, times are seconds. None: the engine cannot tell.

    Attributes:
        sampled_tokens: sampled by the model, over all threads; ``injected_tokens`` and ``prompt_tokens`` apart.
        critical_path_tokens: C(root), where C(thread) is its own sampled tokens and, for every fork that it waited
            for, the largest C(child). Where it sampled on while the children ran, the longer of the two counts. Not
            the longest sequence.
        acceleration: sampled_tokens / critical_path_tokens; 1.0 without a fork.
        prefilled_tokens: context tokens that the engine took in, over all requests of the trace.
        cached_tokens: of these, served from the engine's prefix cache.
        recomputed_tokens: of these, computed although this trace had already computed them once.
        kv_blocks: the most KV blocks that the trace held at once, and was promised for what its running threads were
            about to sample; of as many tokens as the engine's blocks have.
        threads, forks, malformed_forks, failed_threads: how many.
        wall_s, first_token_s: from the start of the trace to its end, and to its first sampled token.
    """

    sampled_tokens: int = 0
    injected_tokens: int = 0
    prompt_tokens: int = 0
    critical_path_tokens: int = 0
    acceleration: float = 1.0
    prefilled_tokens: int | None = 0
    cached_tokens: int | None = 0
    recomputed_tokens: int | None = 0
    kv_blocks: int = 0
    threads: int = 1
    forks: int = 0
    malformed_forks: int = 0
    failed_threads: int = 0
    wall_s: float = 0.0
    first_token_s: float | None = None


def critical_paths(threads: Sequence[Thread]) -> list[int]:
    """C(thread) of every thread: its own sampled tokens and, for every fork it waited for, the largest C(child)."""
    paths = [0] * len(threads)
    for number in range(len(threads) - 1, -1, -1):  # children stand after their parents
        paths[number] = _critical_path(threads[number], paths)
    return paths


def _critical_path(thread: Thread, paths: Sequence[int]) -> int:
    """C of one thread, from those of all threads after it."""
    own = [0, *accumulate(len(span.ids) if span.origin == "sampled" else 0 for span in thread.spans)]
    waited, started = 0, {}  # by how much the path is longer than the thread's own tokens
    forks = [(fork.at, fork) for fork in thread.forks if fork.waited]
    joins = [(fork.joined_at, fork) for fork in thread.forks if fork.waited and fork.joined_at is not None]
    for place, fork in sorted([*forks, *joins], key=itemgetter(0)):
        longest = max((paths[child] for child in fork.children), default=0)
        if fork.joined_at is None:
            waited += longest
        elif id(fork) not in started:
            started[id(fork)] = own[place] + waited
        else:
            waited = max(waited, started[id(fork)] + longest - own[place])
    return own[-1] + waited


def tally(
    threads: Sequence[Thread], wall_s: float = 0.0, first_token_s: float | None = None, kv_blocks: int = 0
) -> Ledger:
    """The ledger of the threads of a trace, the root first."""
    sampled = sum(thread.tokens("sampled") for thread in threads)
    critical = critical_paths(threads)[0]
    return Ledger(
        sampled_tokens=sampled,
        injected_tokens=sum(thread.tokens("injected") for thread in threads),
        prompt_tokens=sum(thread.tokens("prompt") for thread in threads),
        critical_path_tokens=critical,
        acceleration=sampled / critical if critical else 1.0,
        prefilled_tokens=known_sum(thread.prefilled_tokens for thread in threads),
        cached_tokens=known_sum(thread.cached_tokens for thread in threads),
        recomputed_tokens=known_sum(thread.recomputed_tokens for thread in threads),
        kv_blocks=kv_blocks,
        threads=len(threads),
        forks=sum(len(thread.forks) for thread in threads),
        malformed_forks=sum(len(thread.malformed) for thread in threads),
        failed_threads=sum(thread.status == "failed" for thread in threads),
        wall_s=wall_s,
        first_token_s=first_token_s,
    )


class Aggregate(Record):
    """Counts of many traces together; sums of the ledgers' fields unless they say otherwise.

    Attributes:
        traces: how many.
        acceleration_of_sums: all sampled tokens over the sum of the critical paths: long traces weigh more.
        mean_acceleration: the mean of the traces' own ratios: every trace weighs the same.
        forked, malformed: how many traces have a fork, and a malformed fork.
        cached_share: cached over prefilled tokens; None if an engine could not tell, or nothing was prefilled.
    """

    traces: int
    sampled_tokens: int
    critical_path_tokens: int
    prefilled_tokens: int | None
    cached_tokens: int | None
    recomputed_tokens: int | None
    acceleration_of_sums: float
    mean_acceleration: float
    forked: int
    malformed: int
    cached_share: float | None


def aggregate(ledgers: Iterable[Ledger]) -> Aggregate:
    """The ledgers of many traces together."""
    every = list(ledgers)
    sampled = sum(one.sampled_tokens for one in every)
    critical = sum(one.critical_path_tokens for one in every)
    prefilled = known_sum(one.prefilled_tokens for one in every)
    cached = known_sum(one.cached_tokens for one in every)
    return Aggregate(
        traces=len(every),
        sampled_tokens=sampled,
        critical_path_tokens=critical,
        prefilled_tokens=prefilled,
        cached_tokens=cached,
        recomputed_tokens=known_sum(one.recomputed_tokens for one in every),
        acceleration_of_sums=sampled / critical if critical else 1.0,
        mean_acceleration=sum(one.acceleration for one in every) / len(every) if every else 1.0,
        forked=sum(one.forks > 0 for one in every),
        malformed=sum(one.malformed_forks > 0 for one in every),
        cached_share=cached / prefilled if prefilled and cached is not None else None,
    )


def known_sum(counts: Iterable[int | None]) -> int | None:
    """Their sum; None if one of them is not known."""
    known = list(counts)
    return None if any(count is None for count in known) else sum(count or 0 for count in known)
