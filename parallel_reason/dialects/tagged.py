"""What the dialects with tags in the running text have in common."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, SkipValidation
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.base import Amend, Glue, Returned, Stops, ids_of
from parallel_reason.dialects.tags import Tags
from parallel_reason.errors import ModelError
from parallel_reason.trace import JoinRule

Self = TypeVar("Self", bound="Tagged")


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True), kw_only=True)
class Tagged(ABC):
    """A dialect whose children see their parent's tokens and all of whose children must end before a join.

    Attributes:
        words: its tags in a vocabulary.
    """

    name: ClassVar[str]
    tags: ClassVar[dict[str, str]]
    words: SkipValidation[Tags]

    @classmethod
    def bind(cls: type[Self], tokenizer: Any, **options: Any) -> Self:
        """The grammar in a model's vocabulary, its tags single tokens or text.

        Raises:
            ModelError: the tokenizer cannot write a tag.
        """
        for tag in cls.tags.values():
            ids = tokenizer.encode(tag, add_special_tokens=False)
            if tag not in tokenizer.decode(ids, skip_special_tokens=False):
                raise ModelError(
                    f"the tokenizer cannot write {tag}, neither as a token nor as text: dialect {cls.name!r} needs it; "
                    "use a model trained for it, or choose another dialect"
                )
        return cls(words=Tags(cls.tags, tokenizer), **options)

    @classmethod
    @abstractmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """How forks join under some options; see `Dialect`."""

    @property
    def join_rule(self) -> JoinRule:
        """`joins_by` of its own options."""
        return self.joins_by(**{name: value for name, value in vars(self).items() if name != "words"})

    @property
    def shares_prefix(self) -> bool:
        """Children see their parent's tokens."""
        return True

    @property
    def joins_on_first(self) -> bool:
        """The parent waits for all children."""
        return False

    def returns(self, child: Returned) -> bool:
        """Whether a child closed its own tag."""
        return child.ended == "stop"

    def _stops(self, *names: str) -> Stops:
        return self.words.stops(names)

    def _after_last(self, ids: list[int], name: str) -> str | None:
        """The text that follows the last tag ``name``, or None."""
        if self.words.ids is None:  # a token may hold the end of the tag and what follows it
            _, found, after = self.words.pieces(ids)[0].rpartition(self.tags[name])
            return after if found else None
        start = next((mark.stop for mark in reversed(self.words.marks(ids)) if mark.name == name), None)
        return None if start is None else self.words.decode(ids[start:])


NUMBER = r"([0-9]+(?:\.[0-9]+)*)"


def numbers(text: str, item: str) -> list[str]:
    """The numbers, dotted ones too, of all items of a list: ``<Outline> 1.2:`` is ``1.2`` of the item ``<Outline>``."""
    return re.findall(rf"{re.escape(item)}\s*{NUMBER}\s*:", text)


def ending(child: Returned, ids: tuple[int, ...]) -> Amend:
    """Write ``ids`` at a child's end, in place of its end of text if it wrote one."""
    return Amend(int(child.ended == "eos"), (Glue(ids),))


def closing(child: Returned, tag: tuple[int, ...]) -> Amend:
    """Close a child with its tag, if it did not do so itself."""
    return Amend() if child.ended == "stop" else ending(child, tag)


def side_by_side(children: list[Returned], closes: Sequence[Amend]) -> tuple[Amend, ...]:
    """A graft's closes: of every child that ran, since nobody sees the others."""
    return tuple(close if child.ran else Amend() for child, close in zip(children, closes, strict=True))


def newline_closes(words: Tags, children: list[Returned]) -> tuple[Amend, ...]:
    """A graft's closes: the newline that follows every child in training text."""
    newline = words.encode("\n")
    return side_by_side(children, [ending(child, newline) for child in children])


def end_to_end(
    children: list[Returned], closes: Sequence[Amend], headers: Sequence[Sequence[int]]
) -> tuple[tuple[Amend, ...], tuple[Glue, ...]]:
    """A relinearised join: its closes, and the copies it lays down.

    The parent goes on from the first child, if that ran, so this one is closed where it stands. Every other is copied:
    its header, what it wrote, and its close, which its own tokens do without.

    Args:
        closes: what closes each child, [children].
        headers: with what its copy begins, [children].
    """
    copies = tuple(
        Glue((*header, *child.ids[: len(child.ids) - close.take_back], *ids_of(close.glue)), copied=True)
        for child, close, header in zip(children, closes, headers, strict=True)
    )
    stands = int(any(child.ran for child in children[:1]))
    return (*closes[:stands], *[Amend()] * (len(children) - stands)), copies[stands:]
