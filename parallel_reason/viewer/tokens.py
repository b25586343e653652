"""The text of single tokens, for pages: each distinct token once, and what joins differently than its tokens apart."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from parallel_reason.text import TextStream, decode

BROKEN = "\ufffd"  # what a tokenizer writes for part of a character


class TokenTexts:
    """Collects the texts of the tokens of one tokenizer.

    Attributes:
        tokenizer: that makes text of ids.
        texts: of every token id that was asked for, as it stands after another token.
        pairs: of a token after a certain other one, where that makes a difference: some vocabularies have a space
            between two numbers and nowhere else.
        control: ids of added tokens, which are control tokens for people.
        tags: control tags that may be spelled out in several tokens.
    """

    def __init__(self, tokenizer: Any, tags: Iterable[str] = ()) -> None:
        """No token was asked for yet."""
        self.tokenizer = tokenizer
        self.tags = tuple(tags)
        self.texts: dict[int, str] = {}
        self.pairs: dict[tuple[int, int], str] = {}
        self._joined: dict[tuple[int, int], str] = {}  # every pair that was looked at
        self.control = frozenset(tokenizer.get_added_vocab().values())
        (*_, self._anchor) = tokenizer.encode("a", add_special_tokens=False) or [None]
        self._before = "" if self._anchor is None else decode(tokenizer, [self._anchor])

    def pieces(self, ids: Sequence[int]) -> list[str] | None:
        """The text of each token in its place, [tokens]; None if `texts` and `pairs` say it.

        A character of several tokens belongs to the last of them.
        """
        self.note(ids)
        plain = "".join([self.texts[token] for token in ids])
        if BROKEN not in plain:
            whole = self._text(ids)
            if plain == whole and not any(pair in self.pairs for pair in pairwise(ids)):
                return None
            if (
                "".join([self.texts[token] for token in ids[:1]] + [self._after(*pair) for pair in pairwise(ids)])
                == whole
            ):
                return None
        stream = TextStream(self.tokenizer)
        stream.add([] if self._anchor is None else [self._anchor])
        pieces = [stream.add([token]) for token in ids]
        if pieces:
            pieces[-1] += stream.finish()
        return pieces

    def note(self, ids: Iterable[int]) -> None:
        """Have the text of each of these tokens."""
        for token in set(ids) - self.texts.keys():
            self.texts[token] = self._text([token])

    def _after(self, before: int, token: int) -> str:
        """The text of a token after another one."""
        pair = before, token
        if pair not in self._joined:
            text = self._joined[pair] = self._text(pair)[len(self.texts[before]) :]
            if text != self.texts[token]:
                self.pairs[pair] = text
        return self._joined[pair]

    def of(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        return decode(self.tokenizer, list(ids))

    def _text(self, ids: Sequence[int]) -> str:
        """The text of tokens as it goes on after another token."""
        if self._anchor is None:
            return decode(self.tokenizer, list(ids))
        return decode(self.tokenizer, [self._anchor, *ids])[len(self._before) :]


@lru_cache(maxsize=8)
def local_tokenizer(model: str) -> Any | None:
    """The tokenizer of a model folder, or of a Hub id that is in the local cache; None if there is none.

    A trace names its model; a file from elsewhere can name anything, so nothing is downloaded for it.
    """
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError):  # not installed, no such folder, or not a tokenizer
        return None
