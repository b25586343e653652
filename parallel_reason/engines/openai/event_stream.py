"""Server-sent events: bytes as they arrive, to the data of each event.

Lines end with LF, CR LF or CR and with nothing else. `str.splitlines`, and with it `httpx.Response.aiter_lines`, also
splits at U+2028, U+0085, a form feed and others, which stand unescaped in the JSON of what a model writes.
"""

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventStream:
    """Splits one answer into events; an event that is cut off at the end is dropped."""

    def __init__(self) -> None:
        """No byte has come yet."""
        self._line: list[bytes] = []  # parts of a line whose end has not come
        self._data: list[bytes] = []  # data lines of an event whose end has not come
        self._after_cr = False  # a line feed that comes next belongs to the same line end

    def add(self, part: bytes) -> list[bytes]:
        """The data of the events that end in ``part``, without their line ends."""
        if not part:
            return []
        text = part[1:] if self._after_cr and part.startswith(b"\n") else part
        self._after_cr = text.endswith(b"\r")
        first, *others = _LINE_END.split(text)
        self._line.append(first)
        events = []
        for rest in others:
            events += self._end_line(b"".join(self._line))
            self._line = [rest]
        return events

    def _end_line(self, line: bytes) -> list[bytes]:
        """The data of the event that a line ends: one or none."""
        if not line:
            data, self._data = self._data, []
            return [b"\n".join(data)] if data else []
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return []
