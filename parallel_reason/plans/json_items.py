"""Objects of JSON in text that comes piece by piece, each as soon as it closes, whatever stands around them."""

import json
from typing import Any

from parallel_reason.plans.arguments import literal

MAX_OBJECT = 200_000  # characters


class JsonItems:
    """Finds objects that hold no other object, such as the items of a list, in a fence or among words."""

    def __init__(self) -> None:
        """Nothing was read."""
        self._item: list[str] | None = None
        self._string = False
        self._escaped = False

    @property
    def open(self) -> bool:
        """Whether the text so far ends within an object."""
        return self._item is not None

    def feed(self, delta: str) -> list[dict[str, Any] | str]:
        """More text; the objects that it completes, or the text of one that cannot be read."""
        found: list[dict[str, Any] | str] = []
        for char in delta:
            if self._item is None:
                if char == "{":
                    self._item = [char]
                continue
            self._item.append(char)
            if self._string:
                self._string = self._escaped or char != '"'
                self._escaped = char == "\\" and not self._escaped
            elif char == '"':
                self._string = True
            elif char == "{":
                self._item = [char]  # of an object that holds others, only those
            elif char == "}" or len(self._item) > MAX_OBJECT:
                found.append(_read("".join(self._item)))
                self._item = None
            if self._item is not None and len(self._item) > MAX_OBJECT:
                self._item, self._string = None, False
        return found


def _read(text: str) -> dict[str, Any] | str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = literal(text)  # quotes as Python has them
        except ValueError:
            return text
    return value if isinstance(value, dict) else text
