"""Control tags in a vocabulary: as single tokens, or, where the tokenizer splits them, as text across tokens."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from parallel_reason.dialects.base import Stops
from parallel_reason.dialects.quotes import may_quote, quoted_at
from parallel_reason.errors import ModelError
from parallel_reason.text import TextStream, decode


@dataclass(frozen=True, slots=True)
class TagMatch:
    """A tag found in a list of tokens.

    Attributes:
        name: of the tag.
        start, stop: it lies in the tokens ``start`` to ``stop - 1``; the first and the last may hold other text too.
    """

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Tags:
    """The tags of a dialect, bound to a tokenizer.

    If every tag is one token of the vocabulary, tags are matched by id, otherwise all of them by text. Sampled ids are
    decoded to be read, and never encoded again.

    Attributes:
        literals: the text of each tag, by name.
        tokenizer: of the model.
    """

    literals: dict[str, str]
    tokenizer: Any = field(repr=False)

    @cached_property
    def ids(self) -> dict[str, int] | None:
        """The token of each tag, by name; None if any of them is not one token."""
        found = _token_ids(self.tokenizer, len(self.tokenizer), tuple(self.literals.values()))
        return dict(zip(self.literals, found, strict=True)) if found else None

    def token(self, text: str) -> int | None:
        """The token that is this text; None if there is none."""
        found = _token_ids(self.tokenizer, len(self.tokenizer), (text,))
        return found[0] if found else None

    @cached_property
    def _name_of_id(self) -> dict[int, str]:
        return {token: name for name, token in (self.ids or {}).items()}

    @cached_property
    def _name_of_literal(self) -> dict[str, str]:
        return {literal: name for name, literal in self.literals.items()}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.literals.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))

    def stops(self, names: Iterable[str]) -> Stops:
        """Stops at these tags."""
        if self.ids is not None:
            return Stops(ids=frozenset(self.ids[name] for name in names))
        return Stops(texts=tuple(self.literals[name] for name in names))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of text that the runtime inserts, without special tokens around it, [tokens]."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, tags included."""
        return decode(self.tokenizer, ids)

    def matches(self, ids: list[int]) -> list[TagMatch]:
        """Every tag in ``ids``, in order."""
        if self.ids is not None:
            names = self._name_of_id
            return [TagMatch(names[token], place, place + 1) for place, token in enumerate(ids) if token in names]
        if not self._pattern.search(self.decode(ids)):  # of most threads, and quicker
            return []
        text, ends = self.text_and_ends(ids)
        found, place = [], 0
        for match in self._pattern.finditer(text):
            while ends[place] <= match.start():
                place += 1
            start = place
            while ends[place] < match.end():
                place += 1
            found.append(TagMatch(self._name_of_literal[match.group()], start, place + 1))
        return found

    def meant(self, ids: list[int]) -> list[TagMatch]:
        """Every tag in ``ids`` that is not quoted there, in order; see `quotes`."""
        matches = self.matches(ids)
        if not matches or not may_quote(self.decode(ids)):
            return matches
        text, ends = self.text_and_ends(ids)
        quoted = quoted_at(text, self._starts(matches, text, ends))
        return [match for match, is_text in zip(matches, quoted, strict=True) if not is_text]

    def meant_in(self, ids: list[int]) -> tuple[str, list[tuple[str, int]]]:
        """The text of ``ids``, and the name of every tag that is not quoted there with the character after its last."""
        text = self.decode(ids)
        found = [(self._name_of_literal[match.group()], match.start()) for match in self._pattern.finditer(text)]
        if self.ids is not None:
            matches = self.matches(ids)
            if [name for name, _ in found] != [match.name for match in matches]:  # ordinary tokens spell a tag
                text, ends = self.text_and_ends(ids)
                starts = self._starts(matches, text, ends)
                found = [(match.name, start) for match, start in zip(matches, starts, strict=True)]
        quoted = quoted_at(text, [start for _, start in found])
        tags = [(name, start + len(self.literals[name])) for name, start in found]
        return text, [tag for tag, is_text in zip(tags, quoted, strict=True) if not is_text]

    def _starts(self, matches: list[TagMatch], text: str, ends: list[int]) -> list[int]:
        """The first character of each match; ``text`` and ``ends`` as of `text_and_ends`."""
        return [text.rfind(self.literals[match.name], 0, ends[match.stop - 1]) for match in matches]

    def text_and_ends(self, ids: list[int]) -> tuple[str, list[int]]:
        """The text of ``ids``, and for each token how many characters are complete with it, [tokens]."""
        stream, text, ends = TextStream(self.tokenizer), [], []
        length = 0
        for token in ids:
            text.append(stream.add([token]))
            length += len(text[-1])
            ends.append(length)
        return "".join(text), ends

    def tag_at_end(self, ids: list[int], names: Iterable[str]) -> str | None:
        """The name of the tag that the last token of ``ids`` completed, if it is one of ``names``; otherwise None."""
        if not ids:
            return None
        wanted = set(names)
        if self.ids is not None:
            name = self._name_of_id.get(ids[-1])
            return name if name in wanted else None
        longest = max(len(literal) for literal in self.literals.values())
        tail = ids[-4 * longest :]
        last = (match.name for match in reversed(self.matches(tail)) if match.stop == len(tail))
        return next((name for name in last if name in wanted), None)


@lru_cache(maxsize=64)
def _token_ids(tokenizer: Any, size: int, literals: tuple[str, ...]) -> tuple[int, ...] | None:
    """The token of each of these texts; None if any of them is not one token. Reading a vocabulary takes milliseconds.

    Args:
        size: of the tokenizer, which may grow.
    """
    vocabulary = tokenizer.get_vocab()
    return tuple(vocabulary[text] for text in literals) if all(text in vocabulary for text in literals) else None


def control_ids(dialect: str, tags: dict[str, str], tokenizer: Any) -> dict[str, Any]:
    """The token id of each tag, by name, for a dialect whose tags must be single tokens.

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
