"""What the dialects with tags in the running text have in common."""

import re
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, SkipValidation
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.base import Amend, Glue, Returned, Stops
from parallel_reason.dialects.tags import Tags
from parallel_reason.errors import ModelError

Self = TypeVar("Self", bound="Tagged")


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True), kw_only=True)
class Tagged:
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


def newline_closes(words: Tags, children: list[Returned]) -> tuple[Amend, ...]:
    """Every child that ran gets the newline that follows it in training text; an end of text is taken back."""
    newline = (Glue(words.encode("\n")),)
    return tuple(Amend(int(child.ended == "eos"), newline if child.ran else ()) for child in children)
