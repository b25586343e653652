"""Stop texts, looked for in sampled text only: what a prompt quotes never ends a request."""

from typing import Any

from parallel_reason.text import TextStream


class StopTexts:
    """Watches the sampled tokens of one request; the tokenizer may split a stop text over several."""

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
