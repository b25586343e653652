"""What the controller asks of a dialect: pure functions over token ids. One grammar a file beside this one.

The controller calls `Dialect.step` before a thread's first token and whenever it stopped, and does what the returned
act says. When all children of a fork have ended it calls `Dialect.join`. Neither may raise, whatever it is shown.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from parallel_reason.trace import JoinRule

Ended = Literal["start", "stop", "eos"]


@dataclass(frozen=True, slots=True)
class Glue:
    """Tokens that the controller writes.

    Attributes:
        ids: token ids.
        shift: how far the first one's position lies from the next in line; see `Span`.
        copied: whether they repeat tokens of the children, as a relinearised join does.
    """

    ids: tuple[int, ...]
    shift: int = 0
    copied: bool = False


def ids_of(glue: Iterable[Glue]) -> list[int]:
    """The tokens of all pieces, in order."""
    return [token for piece in glue for token in piece.ids]


@dataclass(frozen=True, slots=True)
class Child:
    """A child as its parent asked for it: ``header`` is what the controller writes before the child samples."""

    header: tuple[Glue, ...]


@dataclass(frozen=True, slots=True)
class Stops:
    """Where a thread pauses or ends: at a token, or, where a tokenizer splits its tags, at a text."""

    ids: frozenset[int] = frozenset()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A thread that has stopped, or that has not begun.

    Attributes:
        depth: forks above it; 0 is the root.
        ids: every token it sees, prompt or header and all; a graft's children among them.
        sampled: what it sampled itself and did not take back, since its birth.
        since: how many of ``sampled`` came before its newest join.
        joins: how many joins it has behind it.
        ended: why it stopped: it has not begun, it wrote one of the dialect's stops, or the model's own end of text.
    """

    depth: int
    ids: list[int]
    sampled: list[int]
    since: int
    joins: int
    ended: Ended

    @property
    def newest(self) -> list[int]:
        """What it sampled since its newest join."""
        return self.sampled[self.since :]


@dataclass(frozen=True, slots=True)
class GoOn:
    """Sample on."""


@dataclass(frozen=True, slots=True)
class End:
    """The thread ends here."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A fork that cannot be read; recorded, and the thread samples on as plain text, or ``ends``."""

    reason: str
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Amend:
    """Take back the newest ``take_back`` tokens, write ``glue``, and sample on."""

    take_back: int = 0
    glue: tuple[Glue, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """Fork: first amend the parent, then run the children, then join."""

    children: tuple[Child, ...]
    take_back: int = 0
    glue: tuple[Glue, ...] = ()


Act = GoOn | End | Malformed | Amend | Split


@dataclass(frozen=True, slots=True)
class Returned:
    """A child that has ended.

    Attributes:
        header: what the controller wrote before it sampled.
        ids: all its own tokens after the header that it did not take back: sampled, injected and copied, in order; for
            a graft in it, those of its own children too.
        sampled: of these, what it sampled itself.
        ran: whether it sampled anything at all; a join sees nothing of one that did not.
        ended: ``stop`` or ``eos`` if it came to its own end; ``limit`` if a bound stopped it; ``lost`` if it was
            cancelled or failed.
    """

    header: tuple[Glue, ...]
    ids: list[int]
    sampled: list[int]
    ran: bool
    ended: Literal["stop", "eos", "limit", "lost"]


@dataclass(frozen=True, slots=True)
class Join:
    """How a parent goes on.

    Attributes:
        glue: what the controller writes into it; never empty.
        closes: for each child, what is amended at its end before the join sees it; an empty tuple if nothing.
        ends: why the parent ends after the glue, if it shall not sample on.
    """

    glue: tuple[Glue, ...]
    closes: tuple[Amend, ...] = field(default=())
    ends: str | None = None


class Dialect(Protocol):
    """A grammar bound to one vocabulary.

    Attributes:
        name: under which it is chosen.
        tags: its control tags, by name.
    """

    name: ClassVar[str]
    tags: ClassVar[dict[str, str]]

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """How forks join under some options, the others at their defaults.

        It needs no vocabulary, so an engine can be started for the rule. Options are checked by `bind`, not here.
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

    def step(self, view: View) -> Act:
        """What a thread that stopped does next."""
        ...

    def returns(self, child: Returned) -> bool:
        """Whether a child came back with a result."""
        ...

    def join(self, view: View, children: list[Returned]) -> Join:
        """How the parent, which stopped at ``view`` and was amended since, goes on when its children have ended."""
        ...
