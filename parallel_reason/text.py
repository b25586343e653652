"""Token ids to text, for people to read and to look for stop texts; ids, never text, go back to an engine."""

import re
import string
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

_PLAIN = frozenset(string.ascii_letters + string.digits + string.punctuation)
_BYTE = re.compile("<0x[0-9A-F]{2}>")  # a token that stands for a byte


def decode(tokenizer: Any, ids: list[int]) -> str:
    """The text of ``ids``, control tokens included."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


class TextStream:
    """Turns tokens into text as they come; holds back a character until all its tokens are there."""

    def __init__(self, tokenizer: Any) -> None:
        """No token has come yet."""
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0  # how many of the ids are text already

    def add(self, ids: list[int]) -> str:
        """What ``ids`` add to the text."""
        self._ids += ids
        before = decode(self._tokenizer, self._ids[: self._shown])
        text = decode(self._tokenizer, self._ids)
        if text.endswith("\ufffd"):
            return ""
        # The ids shown last stay: a tokenizer may write a space between them and the next.
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return text[len(before) :]

    def held_back(self) -> str:
        """The whole characters of what is held back."""
        before = decode(self._tokenizer, self._ids[: self._shown])
        return decode(self._tokenizer, self._ids)[len(before) :].rstrip("\ufffd")

    def finish(self) -> str:
        """What is held back, as text, when no more tokens come."""
        before = decode(self._tokenizer, self._ids[: self._shown])
        text = decode(self._tokenizer, self._ids)
        self._shown = len(self._ids)
        return text[len(before) :]


class StopTexts:
    """Looks for stop texts in what a thread samples: what its prompt quotes never ends it.

    The tokenizer may split a stop text over several tokens, and a request may end between them. Most tokens cannot end
    one, and are decoded only when one comes that can.

    Attributes:
        found: the stop text that the newest token completed, of several the one that ends last; None if there is none.
    """

    def __init__(self, tokenizer: Any, texts: tuple[str, ...], before: Sequence[int] = ()) -> None:
        """No token has come yet.

        Args:
            before: the newest tokens that the thread sampled, one right after another; a stop may begin in them.
        """
        self.found: str | None = None
        self._texts = texts
        self._tokenizer = tokenizer
        self._enders: frozenset[int] | None = frozenset()
        self._knows_enders = False
        self._passed: list[int] = []  # tokens that cannot end a stop, not decoded yet
        self._start()
        if before:
            self._add(list(before))

    def _start(self) -> None:
        self._stream = TextStream(self._tokenizer)
        self._longest = max(map(len, self._texts), default=1)
        self._tail = ""  # the newest text that may be the beginning of a stop
        self._known = 0  # how much of it, and of what the stream holds back, was looked at

    def completed_by(self, token: int) -> bool:
        """Add a token; whether a stop ends in what it adds to the text."""
        self.found = None
        if not self._knows_enders:
            self._enders = enders(self._tokenizer, len(self._tokenizer), self._texts)
            self._knows_enders = True
        if self._enders is not None and token not in self._enders:
            self._passed.append(token)
            return False
        if self._passed:
            self._catch_up()
        known, seen = self._known, self._add([token])
        ends = [(end, text) for text in self._texts if (end := seen.rfind(text) + len(text)) > known and text in seen]
        self.found = max(ends)[1] if ends else None
        return self.found is not None

    def kept(self, ids: list[int]) -> int | None:
        """Add tokens; how many of them come up to the end of the first stop, or None if there is none."""
        return next((count for count, token in enumerate(ids, start=1) if self.completed_by(token)), None)

    def _catch_up(self) -> None:
        """Read the tokens that were passed over, or of many the newest: a stop reaches no further back."""
        if len(self._passed) > (most := reach(self._texts)):
            self._start()
        self._add(self._passed[-most:])
        self._passed = []

    def _add(self, ids: list[int]) -> str:
        """The newest text with these tokens; one may end a stop and begin a character, which is held back."""
        text = self._tail + (shown := self._stream.add(ids))
        seen = text if shown else text + self._stream.held_back()
        self._tail = text[max(0, len(text) - self._longest + 1) :]
        self._known = len(seen) - len(text) + len(self._tail)
        return seen


def reach(texts: Iterable[str]) -> int:
    """In how many tokens any of these texts begins at the latest: a character has up to four."""
    return 4 * max(map(len, texts), default=0)


@lru_cache(maxsize=64)
def enders(tokenizer: Any, size: int, texts: tuple[str, ...]) -> frozenset[int] | None:
    """The tokens that may end one of these texts, by their last characters; None if any token may.

    Only letters, digits and punctuation of ASCII stand for themselves in every vocabulary.

    Args:
        size: of the tokenizer, which may grow.
    """
    lasts = {text[-1:] for text in texts}
    if not lasts <= _PLAIN:
        return None
    words = tokenizer.get_vocab().items()
    return frozenset(
        token
        for word, token in words
        if not isinstance(word, str) or _BYTE.fullmatch(word) or any(last in word for last in lasts)
    )
