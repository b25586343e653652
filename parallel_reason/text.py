"""Token ids to text, for people to read and to look for stop texts; ids, never text, go back to an engine."""

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


class StopTexts:
    """Looks for stop texts in the sampled tokens of one request: what a prompt quotes never ends it.

    The tokenizer may split a stop text over several tokens.
    """

    def __init__(self, tokenizer: Any, texts: tuple[str, ...]) -> None:
        """No token has come yet."""
        self._texts = texts
        self._stream = TextStream(tokenizer)
        self._tail = ""  # the newest text that may be the beginning of a stop
        self._longest = max(map(len, texts), default=1)

    def completed_by(self, token: int) -> bool:
        """Add a token; whether the text with it contains a stop that the text before it did not."""
        self._tail += self._stream.add([token])
        seen = self._tail + self._stream.held_back()  # a token may end a stop and begin a character
        found = any(text in seen for text in self._texts)
        self._tail = self._tail[max(0, len(self._tail) - self._longest + 1) :]
        return found

    def kept(self, ids: list[int]) -> int | None:
        """Add tokens; how many of them come up to the end of the first stop, or None if there is none."""
        return next((count for count, token in enumerate(ids, start=1) if self.completed_by(token)), None)
