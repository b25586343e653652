"""Whether a text has the form of its dialect, tag by tag; and blocks of a run that never forked."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from parallel_reason.dialects.form import TOP, Form
from parallel_reason.dialects.tags import TagMatch, Tags


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and at which token of the text."""

    at: int
    what: str


def violations(form: Form, tags: Tags, ids: list[int]) -> list[Problem]:
    """Where a text has not the form, in order; an end of text at its end is no part of it."""
    return sorted(_Reader(form, tags, ids).problems, key=lambda problem: problem.at)


def failed_blocks(form: Form, tags: Tags, sampled: list[int], forks: int) -> list[str]:
    """Blocks that a thread closed without a fork, as the reasons of malformed forks.

    Args:
        forks: how many forks it had, malformed ones among them.
    """
    if not form.closes_block:
        return []
    closes = sum(match.name == form.closes_block for match in tags.meant(sampled))
    return [f"{tags.literals[form.closes_block]} without a fork"] * max(0, closes - forks)


@dataclass(slots=True)
class _Element:
    """An element that is open.

    Attributes:
        name, start: of its tag, and the token where that stands.
        place, count: in the order of its content, and how many elements stand there so far.
        numbers: how many elements it holds of each kind that is numbered.
    """

    name: str
    start: int
    place: int = 0
    count: int = 0
    numbers: Counter[str] = field(default_factory=Counter)


class _Reader:
    """Reads the tags of a text once; ``problems`` is what was found."""

    def __init__(self, form: Form, tags: Tags, ids: list[int]) -> None:
        self.form, self.tags, self.ids = form, tags, ids
        self.orders = {name: content.order() for name, content in form.contents.items()}
        self.problems: list[Problem] = []
        self.open = [_Element(TOP, 0)]
        matches = list(self._matches(ids))
        for before, match in zip([None, *matches], matches, strict=False):
            self._text(before, match)
            if f"{match.name}_end" in tags.literals:
                self._begin(match)
            else:
                self._end(match)
        self._text(matches[-1] if matches else None, None)
        for element in self.open[1:]:
            self._say(element.start, f"{tags.literals[element.name]} is not closed")
        self._complete(self.open[0], len(ids), "the end")

    def _matches(self, ids: list[int]) -> Iterator[TagMatch]:
        """The opening and closing tags of elements."""
        literals = self.tags.literals
        for match in self.tags.meant(ids):
            name = match.name.removesuffix("_end")
            if f"{name}_end" in literals and name in literals:
                yield match

    def _say(self, at: int, what: str) -> None:
        self.problems.append(Problem(at, what))

    def _begin(self, match: TagMatch) -> None:
        """An element begins in the one that is open."""
        holder = self.open[-1]
        if holder.name in self.orders:
            self._place(holder, match)
        if match.name in self.form.numbered:
            holder.numbers[match.name] += 1
            number, literal = holder.numbers[match.name], self.tags.literals[match.name]
            text = self.tags.decode(self.ids[match.start : match.stop + 8]).partition(literal)[2]
            if not re.match(rf"\s*{number}:(?!\s*{re.escape(self.tags.literals[f'{match.name}_end'])})", text):
                self._say(match.start, f"{literal} without its number and text, {number}: ...")
        self.open.append(_Element(match.name, match.start))

    def _place(self, holder: _Element, match: TagMatch) -> None:
        """Find the place of an element in the order of its holder."""
        order, literal = self.orders[holder.name], self.tags.literals[match.name]
        places = [number for number, place in enumerate(order) if match.name in place.names]
        if not places:
            holders = [name for name, held in self.orders.items() if any(match.name in place.names for place in held)]
            only = f", not in {self._literal(name for name in holders if name)}" if any(holders) else ""
            self._say(match.start, f"{literal} {self._within(holder)}{only}")
            return
        reached = holder.place + (holder.count > 0)
        free = [place for place in places if place >= reached or (place == holder.place and order[place].more)]
        if free:
            skipped = order[reached : free[0]]
            holder.count = holder.count + 1 if free[0] == holder.place else 1
            holder.place = free[0]
        elif self.form.contents[holder.name].repeats:
            skipped = [*order[reached:], *order[: places[0]]]
            holder.place, holder.count = places[0], 1
        else:
            self._say(match.start, f"{literal} out of order {self._within(holder)}")
            return
        if due := [place.names for place in skipped if place.must]:
            self._say(match.start, f"{literal} where {self._literal(due[0])} is due {self._within(holder)}")

    def _end(self, match: TagMatch) -> None:
        """The newest element of this kind ends, and with it those that are open in it."""
        name = match.name.removesuffix("_end")
        if not any(element.name == name for element in self.open):
            self._say(match.start, f"{self.tags.literals[match.name]} closes nothing")
            return
        while (element := self.open.pop()).name != name:
            self._say(element.start, f"{self.tags.literals[element.name]} is not closed")
        self._complete(element, match.start, self.tags.literals[match.name])

    def _complete(self, element: _Element, at: int, end: str) -> None:
        """Whether all came that must, before an element ends."""
        order = self.orders.get(element.name, [])
        if element.name in self.orders and self.form.contents[element.name].repeats and not element.count:
            return
        if due := [place.names for place in order[element.place + (element.count > 0) :] if place.must]:
            self._say(at, f"{end} where {self._literal(due[0])} is due {self._within(element)}")

    def _text(self, before: TagMatch | None, after: TagMatch | None) -> None:
        """Text where an element holds none."""
        holder = self.open[-1]
        content = self.form.contents.get(holder.name)
        if content is None or content.text:
            return
        start, stop = before.start if before else 0, after.stop if after else len(self.ids)
        ids = self.ids[start:stop]
        if after is None and ids[-1:] == [self.tags.tokenizer.eos_token_id]:
            ids = ids[:-1]
        text = self.tags.decode(ids)
        if before is not None:
            text = text.partition(self.tags.literals[before.name])[2]
        if after is not None:
            text = text.rpartition(self.tags.literals[after.name])[0]
        if text.strip():
            held = self._literal(name for place in self.orders[holder.name] for name in place.names)
            self._say(before.stop if before else 0, f"text {self._within(holder)}, beside {held}")

    def _literal(self, names: Iterable[str]) -> str:
        return " or ".join(self.tags.literals[name] for name in names)

    def _within(self, element: _Element) -> str:
        return f"in {self.tags.literals[element.name]}" if element.name else "outside of all tags"
