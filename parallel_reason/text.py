"""Token ids to text, for people to read; ids, never text, go back to an engine."""

from typing import Any


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
