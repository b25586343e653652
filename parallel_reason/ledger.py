"""Every count and time of one trace, each defined once.

Evaluations, rewards, the command line and pictures read these numbers; none of them counts tokens itself.
"""

from typing import TYPE_CHECKING

from parallel_reason.noun import Noun

if TYPE_CHECKING:
    from parallel_reason.trace import Thread


class Ledger(Noun):
    """Counts are tokens unless they say otherwise, times are seconds.

    Attributes:
        sampled_tokens: sampled by the model, over all threads; ``injected_tokens`` and ``prompt_tokens`` apart.
        critical_path_tokens: C(root), where C(thread) is its own sampled tokens and, for every fork, the largest
            C(child). Not the longest sequence.
        acceleration: sampled_tokens / critical_path_tokens; 1.0 without a fork.
        prefilled_tokens: sent to the engine as context, over all requests of the trace.
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
    prefilled_tokens: int = 0
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    kv_blocks: int = 0
    threads: int = 1
    forks: int = 0
    malformed_forks: int = 0
    failed_threads: int = 0
    wall_s: float = 0.0
    first_token_s: float | None = None


def critical_path(thread: "Thread") -> int:
    """C(thread): its own sampled tokens and, for every fork, the largest C(child)."""
    below = sum(max((critical_path(child) for child in fork.children), default=0) for fork in thread.forks)
    return thread.tokens("sampled") + below


def tally(root: "Thread", wall_s: float = 0.0, first_token_s: float | None = None, kv_blocks: int = 0) -> Ledger:
    """The ledger of a finished tree of threads."""
    threads = list(root.walk())
    sampled = sum(thread.tokens("sampled") for thread in threads)
    critical = critical_path(root)
    return Ledger(
        sampled_tokens=sampled,
        injected_tokens=sum(thread.tokens("injected") for thread in threads),
        prompt_tokens=sum(thread.tokens("prompt") for thread in threads),
        critical_path_tokens=critical,
        acceleration=sampled / critical if critical else 1.0,
        prefilled_tokens=sum(thread.prefilled_tokens for thread in threads),
        cached_tokens=sum(thread.cached_tokens for thread in threads),
        recomputed_tokens=sum(thread.recomputed_tokens for thread in threads),
        kv_blocks=kv_blocks,
        threads=len(threads),
        forks=sum(len(thread.forks) for thread in threads),
        malformed_forks=sum(len(thread.malformed) for thread in threads),
        failed_threads=sum(thread.status == "failed" for thread in threads),
        wall_s=wall_s,
        first_token_s=first_token_s,
    )
