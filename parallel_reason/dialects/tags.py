"""Control tags in a vocabulary: as single tokens, or, where a tokenizer splits them, as text across tokens."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from parallel_reason.dialects.base import Stops
from parallel_reason.errors import ModelError
from parallel_reason.text import TextStream, decode


@dataclass(frozen=True, slots=True)
class Mark:
    """A tag in a list of tokens: it lies in tokens ``start`` up to ``stop``; both ends may reach into other text."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Tags:
    """The tags of a dialect, by name, bound to a tokenizer.

    If every tag is one token of the vocabulary they are matched by id, else all of them by text. Sampled ids are
    decoded to be read, and never encoded again.
    """

    literals: dict[str, str]
    tokenizer: Any = field(repr=False)

    @cached_property
    def ids(self) -> dict[str, int] | None:
        """The token of every tag; None if any of them is not one token."""
        vocabulary = self.tokenizer.get_vocab()
        if all(literal in vocabulary for literal in self.literals.values()):
            return {name: vocabulary[literal] for name, literal in self.literals.items()}
        return None

    @cached_property
    def _names(self) -> dict[int, str]:
        return {token: name for name, token in (self.ids or {}).items()}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.literals.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))

    @cached_property
    def _of_literal(self) -> dict[str, str]:
        return {literal: name for name, literal in self.literals.items()}

    def stops(self, names: Iterable[str]) -> Stops:
        """Stops at these tags."""
        if self.ids is not None:
            return Stops(ids=frozenset(self.ids[name] for name in names))
        return Stops(texts=tuple(self.literals[name] for name in names))

    def encode(self, text: str) -> tuple[int, ...]:
        """Text that the controller writes, as ids."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: list[int]) -> str:
        """Ids as text, tags shown."""
        return decode(self.tokenizer, ids)

    def marks(self, ids: list[int]) -> list[Mark]:
        """Every tag in ``ids``, in order."""
        if self.ids is not None:
            names = self._names
            return [Mark(names[token], place, place + 1) for place, token in enumerate(ids) if token in names]
        text, ends = self.pieces(ids)
        found, place = [], 0
        for match in self._pattern.finditer(text):
            while ends[place] <= match.start():
                place += 1
            start = place
            while ends[place] < match.end():
                place += 1
            found.append(Mark(self._of_literal[match.group()], start, place + 1))
        return found

    def pieces(self, ids: list[int]) -> tuple[str, list[int]]:
        """The text of ``ids``, and for every token the end of the text that is complete with it, [tokens]."""
        stream, text, ends = TextStream(self.tokenizer), [], []
        length = 0
        for token in ids:
            text.append(stream.add([token]))
            length += len(text[-1])
            ends.append(length)
        return "".join(text), ends

    def last(self, ids: list[int], names: Iterable[str]) -> str | None:
        """Which of these tags ``ids`` end with: the newest token completed it."""
        if not ids:
            return None
        wanted = set(names)
        if self.ids is not None:
            name = self._names.get(ids[-1])
            return name if name in wanted else None
        longest = max(len(literal) for literal in self.literals.values())
        marks = self.marks(ids[-4 * longest :])
        tail = min(len(ids), 4 * longest)
        return next((mark.name for mark in reversed(marks) if mark.stop == tail and mark.name in wanted), None)


def control_ids(dialect: str, tags: dict[str, str], tokenizer: Any) -> dict[str, Any]:
    """The id of each tag, under the tag's name, for a dialect that has no text form.

    Raises:
        ModelError: naming the tags that are not one token of this vocabulary.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [tag for tag in tags.values() if tag not in vocabulary]
    if missing:
        raise ModelError(
            f"the tokenizer has no token for {', '.join(missing)}: dialect {dialect!r} needs them; "
            "use a model trained for it, or choose another dialect"
        )
    return {name: vocabulary[tag] for name, tag in tags.items()}
