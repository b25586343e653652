"""Every count and time of one trace, and of many traces together, each defined once.

Evaluations, rewards, the command line and pictures read these numbers; none of them counts tokens itself.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate

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
        starts, _ = _clock(threads[number], paths)
        paths[number] = starts[-1]
    return paths


def sampled_by_step(threads: Sequence[Thread]) -> list[int]:
    """How many tokens the threads of a trace sample in each step, if each that can sample does so once a step, [steps].

    There are as many steps as the critical path has tokens, and more if a thread that nobody waits for goes on.
    """
    paths = critical_paths(threads)
    births = [0] * len(threads)
    counts: Counter[int] = Counter()
    for number, thread in enumerate(threads):
        starts, forks = _clock(thread, paths)
        for span, start in zip(thread.spans, starts, strict=False):
            if span.origin == "sampled":
                counts.update(range(births[number] + start, births[number] + start + len(span.ids)))
        for fork, at in zip(thread.forks, forks, strict=True):
            for child in fork.children:
                births[child] = births[number] + at
    return [counts[step] for step in range(max(counts, default=-1) + 1)]


def _clock(thread: Thread, paths: Sequence[int]) -> tuple[list[int], list[int]]:
    """When a thread begins each span and last ends, and when it forks: in sampled tokens since its start.

    Args:
        paths: C of all threads after it.

    Returns:
        [spans + 1] and [forks].
    """
    own = [0, *accumulate(len(span.ids) if span.origin == "sampled" else 0 for span in thread.spans)]
    longest = [max((paths[child] for child in fork.children), default=0) for fork in thread.forks]
    forked, joined = defaultdict(list), defaultdict(list)
    for number, fork in enumerate(thread.forks):
        forked[fork.at].append(number)
        if fork.waited and fork.joined_at is not None:
            joined[fork.joined_at].append(number)
    waited, starts, forks = 0, [], [0] * len(thread.forks)  # waited: how much later it is than by its own tokens
    for place, tokens in enumerate(own):
        for number in forked[place]:
            forks[number] = tokens + waited
            if thread.forks[number].waited and thread.forks[number].joined_at is None:
                waited += longest[number]
        for number in joined[place]:
            waited = max(waited, forks[number] + longest[number] - tokens)
        starts.append(tokens + waited)
    return starts, forks


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
