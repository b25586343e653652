"""References to results of earlier calls, as structure: what a result says is never read as a reference again."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parallel_reason.errors import InputError

WRITTEN = re.compile(r"\$(?:\{(\d{1,9})\}|(\d{1,9}))")  # ${1} or $1
CONTAINERS = (list, tuple, set, frozenset, dict)  # what is looked into; subclasses are values like others


@dataclass(frozen=True)
class Ref:
    """The result of a call, or a part of it: ``Ref("1")["title"][0]``."""

    id: str
    path: tuple[str | int, ...] = ()

    __iter__ = None  # Python would count up through __getitem__ without end

    def __getitem__(self, key: str | int) -> "Ref":
        return Ref(self.id, (*self.path, key))

    def __str__(self) -> str:
        return f"${self.id}" + "".join(f"[{key!r}]" for key in self.path)


@dataclass(frozen=True)
class Text:
    """A text with results in it; see `text`."""

    parts: tuple[str | Ref, ...]

    def __str__(self) -> str:
        return "".join(map(str, self.parts))


def text(*parts: "str | Ref | Text") -> Text:
    """A text with results in it, such as ``text("Summarise: ", page["body"])``."""
    flat: list[str | Ref] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Text) else [part])
    return Text(tuple(flat))


def with_references(written: str, before: int) -> str | Ref | Text:
    """A text in which ``$1`` and ``${1}`` stand for results, as LLMCompiler's planner writes them.

    ``$7`` refers to a call only if its number is below ``before``, that of the call which says it: inputs are outputs
    of preceding calls, and ``$50`` is a price. ``${7}`` always refers to one. A text that is one reference and nothing
    else is the result itself, whatever its type.
    """
    parts: list[str | Ref] = []
    end = 0
    for match in WRITTEN.finditer(written):
        braced, plain = match.groups()
        if plain is not None and int(plain) >= before:
            continue
        parts += [written[end : match.start()], Ref(str(int(braced or plain)))]
        end = match.end()
    parts = [part for part in (*parts, written[end:]) if part != ""]
    if len(parts) == 1 and isinstance(parts[0], Ref):
        return parts[0]
    return Text(tuple(parts)) if any(isinstance(part, Ref) for part in parts) else written


def references_in(value: Any) -> Iterator[Ref]:
    """All references in a value: within texts, lists, tuples, sets and dicts."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Text):
        yield from (part for part in value.parts if isinstance(part, Ref))
    elif type(value) in CONTAINERS:
        for item in value.items() if type(value) is dict else value:
            yield from references_in(item)


def filled(value: Any, results: Mapping[str, Any], text_limit: int) -> Any:
    """A value with results in place of its references; the results themselves are not looked into.

    Args:
        results: call id to what it returned.
        text_limit: characters of one result within a text; the rest is left out, and the text says so.

    Raises:
        InputError: a result has no such part.
    """
    if isinstance(value, Ref):
        return _part(value, results)
    if isinstance(value, Text):
        parts = (each if isinstance(each, str) else shown(_part(each, results), text_limit) for each in value.parts)
        return "".join(parts)
    if type(value) in CONTAINERS:
        items = value.items() if type(value) is dict else value
        return type(value)(filled(item, results, text_limit) for item in items)
    return value


def shown(value: Any, text_limit: int) -> str:
    """A result as text, of at most ``text_limit`` characters and a note on what was left out."""
    written = str(value)
    left_out = len(written) - text_limit
    return written if left_out <= 0 else f"{written[:text_limit]} [{left_out} characters left out]"


def _part(ref: Ref, results: Mapping[str, Any]) -> Any:
    value = results[ref.id]
    for key in ref.path:
        try:
            value = value[key]
        except (LookupError, TypeError):
            raise InputError(f"{ref}: the result of {ref.id} has no {key!r}") from None
    return value
