"""A thread of a program while it runs: a running thread, and what its program did with it."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from parallel_reason.runtime.live_thread import LiveFork
from parallel_reason.runtime.requests import Decoding
from parallel_reason.runtime.running import RunningThread
from parallel_reason.runtime.token_pool import TokenShare
from parallel_reason.trace import JoinRule
from parallel_reason.trace.view import View


@dataclass(frozen=True, slots=True)
class KVOfJoin:
    """A join whose KV is put together before the next request of its thread.

    Attributes:
        rule: ``relinearise`` or ``graft``.
        children: those that sampled, in the order of the join.
        before: how many tokens the thread saw when it forked.
    """

    rule: JoinRule
    children: "list[ProgramState]"
    before: int


@dataclass(eq=False, slots=True)
class ProgramState(RunningThread):
    """One thread of a program.

    Attributes:
        parent: None for the root; ``beside_parent`` whether that goes on meanwhile.
        kids, probes: the children that it waits for, and those beside which it goes on, until they are joined or left.
        waiting: forks that it waits for, and ``since`` when it did the first of them, seconds from the start.
        joins: KV of its newest joins, that was not put together yet.
        grafted: how many of the tokens that it sees can't be computed again from their ids, as they lie before the end
            of a graft.
        shares: whether it sees what its parent saw.
        joined, closed: whether its parent went on, and whether its end was reported.
        streams: whether its tokens are read one by one.
        bound: whether it has the KV that it begins with.
        lock: held while its KV is prepared, which several children may want.
        call: tokens of all threads that it may use, while it samples.
        decoding: its request, from which tokens are still to be read; None while it does not sample.
        before: its last request, if it was left before it had ended.
        at_end: whether it sampled the model's end of text, and nothing came after.
        logprobs, top_logprobs: of what it sampled and was not taken back, [tokens]; the latter may be empty.
        answer: what its program finished it with.
        rng: its random numbers, once they were asked for.
    """

    parent: "ProgramState | None" = None
    beside_parent: bool = False
    kids: "list[ProgramState]" = field(default_factory=list)
    probes: "list[ProgramState]" = field(default_factory=list)
    waiting: list[LiveFork] = field(default_factory=list)
    since: float = 0.0
    joins: list[KVOfJoin] = field(default_factory=list)
    grafted: int = 0
    shares: bool = True
    joined: bool = False
    closed: bool = False
    streams: bool = False
    bound: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    call: TokenShare | None = None
    decoding: Decoding | None = None
    before: "asyncio.Task[Any] | None" = None
    at_end: bool = False
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    answer: str | None = None
    rng: random.Random | None = None

    @property
    def ended(self) -> bool:
        """Whether it samples no more."""
        return self.live.status is not None or self.at_end

    @property
    def busy(self) -> bool:
        """Whether a call samples in it."""
        return self.call is not None

    @property
    def lost(self) -> bool:
        """Whether it was cancelled or failed."""
        return self.live.status in ("cancelled", "failed")

    def waited_for(self, fork: LiveFork) -> bool:
        """Whether the children of a fork sampled something, and do not now."""
        children = [child for child in self.kids if child.live in fork.children]
        return any(child.live.ran for child in children) and not any(child.busy for child in children)

    def family(self) -> "list[ProgramState]":
        """It and all threads below it that were not joined or left. Without recursion."""
        found = [self]
        for thread in found:
            found.extend([*thread.kids, *thread.probes])
        return found


def common(one: View, other: View) -> int:
    """How many tokens two views have in common, from the first on."""
    count = 0
    for (start, stop), (first, last) in zip(one.seen, other.seen, strict=False):
        if start != first:
            break
        count += min(stop, last) - start
        if stop != last:
            break
    return count
