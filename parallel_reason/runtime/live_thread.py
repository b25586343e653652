"""A thread while it runs. Changed only by `transitions`; it holds nothing of an engine."""

from dataclasses import dataclass, field

from parallel_reason.dialects.base import ChildResult, Insert, StoppedAt, ThreadView
from parallel_reason.trace import Fork, JoinRule, MalformedFork, Span, Status, Thread
from parallel_reason.trace.view import TokenTable, View


@dataclass(eq=False, slots=True)
class LiveFork:
    """A fork of a live thread; see `Fork`, and `StartFork` for its key."""

    at: int
    join_rule: JoinRule
    shares_prefix: bool
    key: str | None = None
    waited: bool = True
    joined_at: int | None = None
    children: "list[LiveThread]" = field(default_factory=list)


@dataclass(eq=False, slots=True)
class LiveThread:
    """What was written so far, what the next token sees, and what a dialect is given.

    Attributes:
        label, depth: its path in the tree, and how many forks lie above it.
        table: all tokens of its trace; ``view`` what it sees of them.
        floor: how many tokens it saw at its start or its newest join; these can't be taken back.
        own_from: how many tokens it saw before its own first one, its header included.
        header: what was written before it sampled.
        sampled: what it sampled and was not taken back, [tokens]; the first ``sampled_before_join`` before its newest
            join.
        drawn: how many tokens it sampled, taken back or not.
        critical_path: sampled tokens on the longest chain of threads that ends at its newest token.
        computed: how many of the tokens it sees, from the first on, have KV that this trace computed.
        copied: how many tokens a relinearised join wrote since its last request; these will be computed once more.
        joins: how many of its forks have joined; ``stopped_at`` why it stopped sampling.
        stopped_by_caller: whether it ended at a stop of its sampling parameters, which a dialect takes as a bound.
        status: how it ended; None while it runs.
        prefilled_tokens, cached_tokens, recomputed_tokens, queued_s, running_s, waiting_s: see `Thread`.
    """

    label: str
    table: TokenTable
    view: View = field(default_factory=View)
    depth: int = 0
    floor: int = 0
    own_from: int = 0
    header: tuple[Insert, ...] = ()
    spans: list[Span] = field(default_factory=list)
    forks: list[LiveFork] = field(default_factory=list)
    malformed: list[MalformedFork] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    sampled_before_join: int = 0
    drawn: int = 0
    critical_path: int = 0
    computed: int = 0
    copied: int = 0
    joins: int = 0
    stopped_at: StoppedAt = "start"
    stopped_by_caller: bool = False
    status: Status | None = None
    stop_reason: str = ""
    text: str = ""
    prefilled_tokens: int | None = 0
    cached_tokens: int | None = 0
    recomputed_tokens: int | None = 0
    queued_s: float = 0.0
    running_s: float = 0.0
    waiting_s: float = 0.0

    @property
    def context(self) -> tuple[list[int], list[int]]:
        """Ids and positions of all tokens it sees, each [tokens]."""
        return self.table.gather(self.view)

    @property
    def newest(self) -> int:
        """Id of the token it saw last; it sees at least one."""
        return self.table.ids[self.view.newest]

    @property
    def ran(self) -> bool:
        """Whether it sampled anything."""
        return self.drawn > 0

    def tail(self, most: int) -> int:
        """How many of the newest tokens it sees it sampled itself, one right after another since its newest join."""
        most, count = min(most, len(self.view) - self.floor), 0
        for start, stop in reversed(self.view.seen):
            for token in range(stop - 1, start - 1, -1):
                if count == most or not self.table.sampled[token]:
                    return count
                count += 1
        return count

    def thread_view(self) -> ThreadView:
        """What a dialect is given of it."""
        ids, _ = self.context
        beside = [fork for fork in self.forks if fork.key is not None]
        return ThreadView(
            depth=self.depth,
            ids=ids,
            sampled=self.sampled,
            sampled_before_join=self.sampled_before_join,
            joins=self.joins,
            stopped_at=self.stopped_at,
            since_join=self.floor,
            forked=tuple(str(fork.key) for fork in beside),
            joined=tuple(str(fork.key) for fork in beside if fork.waited),
        )

    def beside(self, key: str) -> LiveFork:
        """The fork with a key; raises KeyError if there is none, or it has joined."""
        return {fork.key: fork for fork in self.forks if not fork.waited}[key]

    def result(self) -> ChildResult:
        """What a dialect is given of it when it has ended."""
        if self.status in ("cancelled", "failed"):
            return self._result("lost")
        if self.status == "finished" and self.stopped_at != "start" and not self.stopped_by_caller:
            return self._result(self.stopped_at)
        return self._result("limit")

    def _result(self, ended: "str") -> ChildResult:
        ids, _ = self.context
        return ChildResult(self.header, ids[self.own_from :], self.sampled, self.ran, ended)  # type: ignore[arg-type]


def records(root: LiveThread) -> list[Thread]:
    """A tree of threads that have ended as records, depth first, the root first. Without recursion."""
    ordered: list[tuple[LiveThread, int | None]] = []
    numbers: dict[LiveThread, int] = {}
    waiting: list[tuple[LiveThread, int | None]] = [(root, None)]
    while waiting:
        thread, parent = waiting.pop()
        numbers[thread] = len(ordered)
        ordered.append((thread, parent))
        below = [child for fork in thread.forks for child in fork.children]
        waiting += [(child, numbers[thread]) for child in reversed(below)]
    return [_record(thread, parent, numbers) for thread, parent in ordered]


def _record(thread: LiveThread, parent: int | None, numbers: dict[LiveThread, int]) -> Thread:
    if thread.status is None:
        raise ValueError(f"thread {thread.label} has not ended")
    forks = [
        Fork(
            at=fork.at,
            join_rule=fork.join_rule,
            shares_prefix=fork.shares_prefix,
            waited=fork.waited,
            joined_at=fork.joined_at,
            children=[numbers[child] for child in fork.children],
        )
        for fork in thread.forks
    ]
    return Thread(
        label=thread.label,
        parent=parent,
        spans=thread.spans,
        forks=forks,
        malformed=thread.malformed,
        status=thread.status,
        stop_reason=thread.stop_reason,
        text=thread.text,
        prefilled_tokens=thread.prefilled_tokens,
        cached_tokens=thread.cached_tokens,
        recomputed_tokens=thread.recomputed_tokens,
        queued_s=thread.queued_s,
        running_s=thread.running_s,
        waiting_s=thread.waiting_s,
    )
