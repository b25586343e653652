"""The protocol of a dialect: pure functions over token ids. One grammar a file beside this one.

A run calls `Dialect.step` before a thread's first token and whenever it stopped, and applies the returned action. When
all children of a fork have ended it calls `Dialect.join`. Neither may raise, whatever it is given.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from parallel_reason.dialects.form import Form
from parallel_reason.trace.thread import JoinRule

StoppedAt = Literal["start", "stop", "eos"]


@dataclass(frozen=True, slots=True)
class Insert:
    """Tokens that the runtime writes into a thread.

    Attributes:
        ids: token ids, [tokens].
        shift: how far the first one's position lies from the thread's next position; see `Span`.
        copied: whether they repeat tokens of the children, as a relinearised join does.
    """

    ids: tuple[int, ...]
    shift: int = 0
    copied: bool = False


def ids_of(inserts: Iterable[Insert]) -> list[int]:
    """The tokens of all pieces, in order."""
    return [token for piece in inserts for token in piece.ids]


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A child that a fork starts: ``header`` is written into it before it samples."""

    header: tuple[Insert, ...]


@dataclass(frozen=True, slots=True)
class Stops:
    """Where a thread pauses or ends: at a token, or, where a tokenizer splits its tags, at a text."""

    ids: frozenset[int] = frozenset()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ThreadView:
    """What a dialect is given of a thread that has stopped, or has not started.

    Attributes:
        depth: forks above it; 0 is the root.
        ids: every token it sees, prompt or header and all; a graft's children among them.
        sampled: what it sampled itself and was not taken back, since its start.
        sampled_before_join: how many of ``sampled`` came before its newest join.
        joins: how many of its forks have joined.
        stopped_at: it has not started, it wrote one of the dialect's stops, or the model's own end of text.
        since_join: how many of ``ids`` it saw at its newest join, or at its start.
        forked, joined: keys of the forks beside which it went on, and of those it has joined since; see `StartFork`.
    """

    depth: int
    ids: list[int]
    sampled: list[int]
    sampled_before_join: int
    joins: int
    stopped_at: StoppedAt
    since_join: int = 0
    forked: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()

    @property
    def sampled_since_join(self) -> list[int]:
        """What it sampled since its newest join."""
        return self.sampled[self.sampled_before_join :]


@dataclass(frozen=True, slots=True)
class Continue:
    """Sample on."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The thread ends here."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A fork that cannot be read; it is recorded, and the thread samples on as plain text, or ``ends``."""

    reason: str
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Take back the newest ``take_back`` tokens, write ``inserts``, and sample on."""

    take_back: int = 0
    inserts: tuple[Insert, ...] = ()


@dataclass(frozen=True, slots=True)
class StartFork:
    """Fork: first rewrite the parent, then run the children, then join.

    Attributes:
        key: None if the parent waits for the children here. Otherwise it samples on while they run, and a later `Join`
            of this key waits for them; no two forks of a thread have one key, and the join rule is ``message``.
            Children that are not joined when their parent ends are cancelled.
    """

    children: tuple[ChildSpec, ...]
    take_back: int = 0
    inserts: tuple[Insert, ...] = ()
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """Wait for the children of an earlier fork of this thread, beside which it went on, and join them."""

    key: str


Action = Continue | Finish | Reject | Rewrite | StartFork | Join


@dataclass(frozen=True, slots=True)
class ChildResult:
    """A child that has ended.

    Attributes:
        header: what was written before it sampled.
        ids: all its own tokens after the header that were not taken back: sampled, injected and copied, in order; after
            a graft in it, those of its own children too.
        sampled: of these, what it sampled itself.
        ran: whether it sampled anything at all; a join sees nothing of one that did not.
        ended: ``stop`` or ``eos`` if it came to its own end; ``limit`` if a bound ended it; ``lost`` if it was
            cancelled or failed.
    """

    header: tuple[Insert, ...]
    ids: list[int]
    sampled: list[int]
    ran: bool
    ended: Literal["stop", "eos", "limit", "lost"]


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a parent goes on.

    Attributes:
        inserts: what is written into it; never empty.
        closes: for each child, what is rewritten at its end before the join; an empty tuple if nothing.
        ends: why the parent ends after the inserts; None if it samples on.
    """

    inserts: tuple[Insert, ...]
    closes: tuple[Rewrite, ...] = field(default=())
    ends: str | None = None


class Dialect(Protocol):
    """A grammar bound to one vocabulary.

    Attributes:
        name: under which it is chosen.
        tags: its control tags, by name.
        form: of its training text.
    """

    name: ClassVar[str]
    tags: ClassVar[dict[str, str]]
    form: ClassVar[Form]

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """How forks join under some options, the others at their defaults.

        It needs no vocabulary, so an engine can be started for the rule. Options are checked by `bind`.
        """
        ...

    @property
    def join_rule(self) -> JoinRule:
        """How its forks join: `joins_by` of the options that it was bound with."""
        ...

    @property
    def shares_prefix(self) -> bool:
        """Whether children see their parent's tokens."""
        ...

    @property
    def joins_on_first(self) -> bool:
        """Whether the first child that `returns` something cancels the others."""
        ...

    @classmethod
    def bind(cls, tokenizer: Any, **options: Any) -> "Dialect":
        """The grammar in a model's vocabulary.

        Raises:
            ModelError: the vocabulary cannot write its tags.
            pydantic.ValidationError: an option it does not have, or an unusable value.
        """
        ...

    def stops(self, depth: int) -> Stops:
        """Where a thread ``depth`` forks below the root stops, besides at the model's own end of text."""
        ...

    def step(self, view: ThreadView) -> Action:
        """What a thread that stopped does next."""
        ...

    def returns(self, child: ChildResult) -> bool:
        """Whether a child came back with a result."""
        ...

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """How the parent, which stopped at ``view`` and was rewritten since, goes on when its children have ended."""
        ...

    def answer(self, view: ThreadView) -> str | None:
        """The answer in a root that has finished, as text; None if it has none."""
        ...
