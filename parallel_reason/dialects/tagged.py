"""What dialects whose tags stand in the running text have in common: binding, reading tags, closing children."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, SkipValidation
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.answers import answer_ids, inside_last, without_lone_ends
from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    ChildSpec,
    Continue,
    Finish,
    Insert,
    Rewrite,
    StartFork,
    Stops,
    ThreadView,
    ids_of,
)
from parallel_reason.dialects.form import Form
from parallel_reason.dialects.options import option_names
from parallel_reason.dialects.quotes import unquoted
from parallel_reason.dialects.tags import Tags
from parallel_reason.errors import ModelError
from parallel_reason.trace.thread import JoinRule


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True), kw_only=True)
class Tagged(ABC):
    """A dialect whose children see their parent's tokens, and whose parent waits for all of its children.

    Attributes:
        name: under which it is chosen.
        tags: its control tags, by name.
        form: of its training text; by default every tag that has a closing tag need only be closed.
        vocabulary: the tags bound to the tokenizer of a model.
    """

    name: ClassVar[str]
    tags: ClassVar[dict[str, str]]
    form: ClassVar[Form] = Form()
    vocabulary: SkipValidation[Tags]

    @classmethod
    def bind(cls, tokenizer: Any, **options: Any) -> Self:
        """The dialect bound to a model's vocabulary, with its tags as single tokens or as text.

        Raises:
            ModelError: the tokenizer cannot write a tag.
            pydantic.ValidationError: an option that it does not have, or a value that the option does not take.
        """
        for tag in cls.tags.values():
            ids = tokenizer.encode(tag, add_special_tokens=False)
            if tag not in tokenizer.decode(ids, skip_special_tokens=False):
                raise ModelError(
                    f"the tokenizer cannot write {tag}, neither as a token nor as text: dialect {cls.name!r} needs it; "
                    "use a model trained for it, or choose another dialect"
                )
        return cls(vocabulary=Tags(cls.tags, tokenizer), **options)

    @classmethod
    @abstractmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """How forks join under these options; see `Dialect`."""

    @property
    def join_rule(self) -> JoinRule:
        """`joins_by` of the options that it was bound with."""
        return self.joins_by(**{name: getattr(self, name) for name in option_names(self)})

    @property
    def shares_prefix(self) -> bool:
        """Children see their parent's tokens."""
        return True

    @property
    def joins_on_first(self) -> bool:
        """The parent waits for all children."""
        return False

    def returns(self, child: ChildResult) -> bool:
        """Whether a child wrote its own closing tag."""
        return child.ended == "stop"

    def answer(self, view: ThreadView) -> str | None:
        """All that a root sampled after its last join, without closing tags that close nothing in it."""
        return without_lone_ends(self.vocabulary.decode(answer_ids(view)), self.tags).strip() or None

    def answer_inside(self, view: ThreadView, name: str) -> str | None:
        """What stands in the last tag ``name`` after the last join; without one, `Tagged.answer`."""
        text = self.vocabulary.decode(answer_ids(view))
        inside = inside_last(text, self.tags[name], self.tags[f"{name}_end"])
        return Tagged.answer(self, view) if inside is None else inside

    def stops_at(self, *names: str) -> Stops:
        """Stops at the tags with these names."""
        return self.vocabulary.stops(names)

    def last_opened(self, view: ThreadView, name: str) -> tuple[str, int] | None:
        """What a thread sampled, and the character after the last tag ``name`` that is not quoted; None without one.

        The text is what it sampled since its newest join, if the tag is there, or else all that it sampled.
        """
        for ids in (view.sampled_since_join, view.sampled):
            text, meant = self.vocabulary.meant_in(ids)
            if stops := [stop for tag, stop in meant if tag == name]:
                return text, stops[-1]
        return None

    def last_inside(self, ids: list[int], name: str) -> str | None:
        """What follows the last tag ``name`` that is not quoted, up to its closing tag if that comes; None without."""
        text, meant = self.vocabulary.meant_in(ids)
        tags = [(tag, stop) for tag, stop in meant if tag in (name, f"{name}_end")]
        opened = [number for number, (tag, _) in enumerate(tags) if tag == name]
        if not opened:
            return None
        closes = [stop - len(self.tags[f"{name}_end"]) for tag, stop in tags[opened[-1] :] if tag != name]
        return text[tags[opened[-1]][1] : closes[0] if closes else None]


_NUMBER = r"([0-9]+(?:\.[0-9]+)*)"


def item_numbers(text: str, item: str, start: int = 0) -> list[str]:
    """The number of each list item that begins with the tag ``item``, as text: ``<Outline> 1.2:`` gives ``1.2``.

    Args:
        text: in which quoted tags begin no item.
        start: the character from which on items count.
    """
    return [match[1] for match in unquoted(re.compile(rf"{re.escape(item)}\s*{_NUMBER}\s*:"), text, start)]


def fork_at_start(view: ThreadView, headers: Iterable[tuple[int, ...]]) -> Action:
    """Fork before the first token of the root, into a child a header; every other stop ends its thread."""
    if view.stopped_at != "start":
        return Finish()
    return Continue() if view.depth else StartFork(tuple(ChildSpec((Insert(header),)) for header in headers))


def write_at_end(child: ChildResult, ids: tuple[int, ...]) -> Rewrite:
    """Write ``ids`` at the end of a child; its end of text, if it sampled one, is taken back."""
    return Rewrite(int(child.ended == "eos"), (Insert(ids),))


def close_if_open(child: ChildResult, tag: tuple[int, ...]) -> Rewrite:
    """Write the closing ``tag`` at the end of a child that did not write it itself."""
    return Rewrite() if child.ended == "stop" else write_at_end(child, tag)


def closes_for_graft(children: list[ChildResult], closes: Sequence[Rewrite]) -> tuple[Rewrite, ...]:
    """The closes of a graft, [children]: none for a child that sampled nothing, since the join does not see it."""
    return tuple(close if child.ran else Rewrite() for child, close in zip(children, closes, strict=True))


def newline_after_each(vocabulary: Tags, children: list[ChildResult]) -> tuple[Rewrite, ...]:
    """The closes of a graft, [children], where a newline follows every child in the training text."""
    newline = vocabulary.encode("\n")
    return closes_for_graft(children, [write_at_end(child, newline) for child in children])


def closes_and_copies(
    children: list[ChildResult], closes: Sequence[Rewrite], headers: Sequence[Sequence[int]]
) -> tuple[tuple[Rewrite, ...], tuple[Insert, ...]]:
    """What a relinearised join rewrites at the end of each child, and the copies of children that it inserts.

    If the first child sampled anything, the parent goes on from that child's own tokens: it is closed in place and not
    copied. Every other child is copied: its header, its tokens and its close. Its own tokens stay as they are.

    Args:
        closes: what closes each child, [children].
        headers: token ids with which the copy of each child begins, [children].

    Returns:
        The closes, [children], and the copies, in order.
    """
    copies = tuple(
        Insert((*header, *child.ids[: len(child.ids) - close.take_back], *ids_of(close.inserts)), copied=True)
        for child, close, header in zip(children, closes, headers, strict=True)
    )
    in_place = int(any(child.ran for child in children[:1]))
    return (*closes[:in_place], *[Rewrite()] * (len(children) - in_place)), copies[in_place:]
