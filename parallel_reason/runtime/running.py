"""A live thread together with what it uses on an engine while it runs."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from parallel_reason.engines.admission import ThreadBlocks, TraceBlocks
from parallel_reason.engines.base import KVHandle
from parallel_reason.runtime.budget import Allotment, DealtAllotments
from parallel_reason.runtime.live_thread import LiveFork, LiveThread
from parallel_reason.text import TextStream
from parallel_reason.trace import JoinRule


@dataclass(eq=False, slots=True)
class HeldKV:
    """Handles on the KV of a thread.

    Attributes:
        handles: of the first `__len__` tokens that the thread sees, in order.
        owned: those that this thread must release; the others belong to its parent.
        missing: whether it sees tokens of a graft whose KV nobody holds, so that it can never go on.
    """

    handles: tuple[KVHandle, ...] = ()
    owned: list[KVHandle] = field(default_factory=list)
    missing: bool = False

    def __len__(self) -> int:
        """How many tokens it has KV of."""
        return sum(map(len, self.handles))

    def fork(self, shares_prefix: bool) -> "HeldKV":
        """What a child starts with; the parent keeps it until the child has ended."""
        return HeldKV(self.handles if shares_prefix else ())

    def copy(self, tokens: int) -> "HeldKV":
        """Handles of its own on the first so many tokens."""
        parts, left = [], tokens
        for handle in self.handles:
            if left > 0:
                parts.append(handle[: min(left, len(handle))])
                left -= len(handle)
        return HeldKV(tuple(parts), parts, self.missing)

    def hold(self, handle: KVHandle) -> None:
        """Hold KV in one handle, instead of what it held."""
        self.release()
        self.handles, self.owned = (handle,), [handle]

    def keep_first(self, tokens: int) -> None:
        """Hold no more than the first so many tokens."""
        if len(self) > tokens:
            self.handles = self.part(0, tokens)

    def part(self, start: int, stop: int) -> tuple[KVHandle, ...]:
        """Handles on a range of the tokens; those that are cut are owned by this thread."""
        parts, place = [], 0
        for handle in self.handles:
            first, last = max(0, start - place), min(len(handle), stop - place)
            if first == 0 and last == len(handle):
                parts.append(handle)
            elif first < last:
                parts.append(handle[first:last])
                self.owned.append(parts[-1])
            place += len(handle)
        return tuple(parts)

    def take_over(self, child: "HeldKV") -> None:
        """Own what a child owned."""
        self.owned += child.owned
        child.owned = []

    def release(self) -> None:
        """Give back all that it owns."""
        for handle in self.owned:
            handle.release()
        self.owned = []


@dataclass(eq=False, slots=True)
class RunningThread:
    """One thread of a run.

    Attributes:
        live: what it wrote and sees.
        left: what it may still use of the bounds on the whole trace.
        dealer, number: what its siblings share of these bounds, and which of them it is; None for the root.
        blocks, kv: what it holds on the engine.
        children: of its newest fork, while that has not joined.
        beside: children of forks that it did not wait for and has not joined, which run in a ``task`` of their own.
        cancelled: why it is to stop, once somebody cancelled it.
        request: the id of its request that runs; ``stopped`` whether the last one ended at a stop.
        text: its tokens as text so far, for who watches.
    """

    live: LiveThread
    left: Allotment
    dealer: DealtAllotments | None = None
    number: int = 0
    blocks: ThreadBlocks = field(default_factory=ThreadBlocks)
    kv: HeldKV = field(default_factory=HeldKV)
    children: "list[RunningThread]" = field(default_factory=list)
    beside: "list[RunningThread]" = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None
    cancelled: str | None = None
    request: str | None = None
    stopped: bool = False
    text: TextStream | None = None

    def trim_kv(self) -> None:
        """Let go of the KV of tokens that were taken back."""
        self.kv.keep_first(self.live.computed)

    def start_children(self, fork: LiveFork, allowed: int) -> None:
        """Deal what is left to the children; those beyond ``allowed`` will not run, and get nothing."""
        if not fork.children:
            return
        dealer = DealtAllotments(self.left, min(allowed, len(fork.children)))
        shared = len(self.live.view) if fork.shares_prefix else 0
        for number, child in enumerate(fork.children):
            runs = number < allowed
            self.children.append(
                RunningThread(
                    live=child,
                    left=dealer.each[number] if runs else Allotment(0, 0),
                    dealer=dealer if runs else None,
                    number=number,
                    blocks=ThreadBlocks(shared=shared),
                    kv=self.kv.fork(fork.shares_prefix),
                )
            )
        self.left.tokens, self.left.forks = None if self.left.tokens is None else 0, 0

    def start_beside(self, fork: LiveFork, allowed: int, *, may_fork: bool) -> "list[RunningThread]":
        """Children that run while this thread goes on. It deals what is left among itself and them.

        Args:
            allowed: how many of them run.
            may_fork: whether they may fork, and so get a part of the forks that are left.
        """
        running = fork.children[:allowed]
        mine, *parts = DealtAllotments(self.left, 1 + len(running)).each
        if not may_fork:
            mine.forks, parts = self.left.forks, [Allotment(part.tokens, 0) for part in parts]
        self.left.tokens, self.left.forks = mine.tokens, mine.forks
        started = [RunningThread(live=child, left=part) for child, part in zip(running, parts, strict=True)]
        self.beside += started
        return started

    def join_beside(self, fork: LiveFork) -> None:
        """Take over what the children of a fork leave, all of which have ended."""
        for child in [child for child in self.beside if child.live in fork.children]:
            if self.left.tokens is not None:
                self.left.tokens += child.left.tokens or 0
            self.left.forks += child.left.forks
            self.beside.remove(child)

    def join_children(self, rule: JoinRule, born: int, blocks: TraceBlocks) -> None:
        """Take over what the children leave; called before the live thread joins.

        Args:
            born: how many tokens the parent saw when it forked.
        """
        self.take_over(self.children, rule, born, blocks)
        if self.children and (dealer := self.children[0].dealer) is not None:
            rest = dealer.rest()
            self.left.tokens, self.left.forks = rest.tokens, rest.forks
        self.children = []

    def take_over(self, children: "Sequence[RunningThread]", rule: JoinRule, born: int, blocks: TraceBlocks) -> None:
        """Take over the KV and the blocks of children that are joined; see `join_children`."""
        for child in children:
            child.trim_kv()
        ran = [child for child in children if child.live.ran]
        if rule == "relinearise" and ran and ran[0] is children[0]:
            self.kv.handles = ran[0].kv.handles
            self.kv.missing = ran[0].kv.missing
        if rule == "graft" and ran:
            self.kv.missing = any(child.kv.missing or len(child.kv) < len(child.live.view) for child in ran)
            for child in ran:
                self.kv.handles += child.kv.part(born, len(child.live.view))
        for child in children:
            if rule == "message":
                child.kv.release()
                blocks.give_back(child.blocks)
            self.kv.take_over(child.kv)
            self.blocks.borrowed += child.blocks.blocks + child.blocks.borrowed

    def below(self) -> "list[RunningThread]":
        """It and all threads below it that run. Without recursion."""
        found = [self]
        for thread in found:
            found.extend([*thread.children, *thread.beside])
        return found
