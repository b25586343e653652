"""The form of a dialect's training text, as data: what the public systems' checkers and training code ask of it.

An element is a tag with its closing tag: ``goal`` is all from ``<Goal>`` to ``</Goal>``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

TOP = ""  # what stands in no element


@dataclass(frozen=True, slots=True)
class Content:
    """What an element holds.

    Attributes:
        elements: names of elements in the order in which they come, each with ``+`` for one or more, ``*`` for any
            number, ``?`` for one at most; ``a|b`` is one of them.
        repeats: whether the whole order may come any number of times, or not at all.
        text: whether text may stand between them, and not blanks alone.
    """

    elements: str = ""
    repeats: bool = False
    text: bool = True

    def order(self) -> "list[Place]":
        """Its places, in order."""
        return [
            Place(tuple(place.rstrip("+*?").split("|")), must=place[-1] not in "*?", more=place[-1] in "+*")
            for place in self.elements.split()
        ]


class Place(NamedTuple):
    """A place in an order: the elements of which one stands there, whether one must, and whether more may."""

    names: tuple[str, ...]
    must: bool
    more: bool


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a training text.

    Attributes:
        contents: what each element holds, by its name, and the text itself under ``TOP``; an element that is not named
            need only be closed.
        numbered: elements that begin with their number among their kind, ``1:``, ``2:``, and have text after it.
        opens_child: tags that begin a child. The runtime writes them; elsewhere they have no meaning in a mask.
        closes_block: the tag with which a thread ends what it forked in; one without a fork is a fork that failed.
        options: of the dialect with which a fork is read whose children follow: a run has bounds that text has not.
        open_ended: whether the text alone says how many children a fork has, of which ``renamed`` (counted from 0) may
            stand in the place of any other.
        blanks_count: whether blanks beside a grafted child move the positions of what follows.
        drops_blanks: whether blanks between children are left out in training.
        join_block: a join as text, in a row that holds one call and none of its children.
        positions: where the source's trainer puts every token of a row, prompt and all, given the dialect and the ids;
            None where that is where a run puts them.
    """

    contents: Mapping[str, Content] = field(default_factory=dict)
    numbered: tuple[str, ...] = ()
    opens_child: tuple[str, ...] = ()
    closes_block: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    open_ended: bool = False
    renamed: tuple[int, ...] = ()
    blanks_count: bool = True
    drops_blanks: bool = False
    join_block: re.Pattern[str] | None = None
    positions: Callable[[Any, list[int]], list[int] | None] = lambda dialect, ids: None
