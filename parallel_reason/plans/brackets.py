"""Where a bracket closes, in text that comes piece by piece."""

OPEN = {"(": ")", "[": "]", "{": "}"}
CLOSE = frozenset(OPEN.values())


class Brackets:
    """Reads characters and knows which brackets are open; those within a quoted text do not count.

    A quote opens a text unless it follows a letter or a digit, so that ``search(Arthur's Magazine)`` opens none.

    Attributes:
        open: the closing brackets that are still to come, the innermost last.
        quote: the quote that ends the text that it is in.
    """

    def __init__(self, *, quotes: bool = True) -> None:
        """Nothing is open; without ``quotes``, those are characters like others."""
        self._quotes = "\"'" if quotes else ""
        self.open: list[str] = []
        self.quote: str | None = None
        self._escaped = False
        self._last = ""

    def feed(self, char: str) -> None:
        """The next character. A closing bracket that was not opened is text."""
        if self.quote is not None:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == self.quote:
                self.quote = None
        elif char in self._quotes and not self._last.isalnum():
            self.quote = char
        elif char in OPEN:
            self.open.append(OPEN[char])
        elif char in CLOSE and char in self.open:
            while self.open.pop() != char:  # an inner one was forgotten
                pass
        self._last = char
