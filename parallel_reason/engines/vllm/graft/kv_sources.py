"""Where KV was computed.

KV is known by the sequence it was computed in: a `SourceSlice` is consecutive tokens of one `KVSource`. A sequence is
the slices that it begins with and, after them, the tokens that its own request computes.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class SourceSlice(NamedTuple):
    """The tokens ``start`` to ``stop`` of the sequence of ``source``."""

    source: "KVSource"
    start: int
    stop: int


SourceSlices = tuple[SourceSlice, ...]


@dataclass(eq=False, slots=True)
class KVSource:
    """A sequence, some of whose KV one request computed, with all that is needed to compute it once more.

    Attributes:
        name: unique in the engine; its blocks are pinned under this.
        ids, positions: of all its tokens, [tokens].
        before: the KV that it began with.
        references: how many handles and requests need its pin.
        epoch: how often it was computed again; ``computing`` is held meanwhile.
    """

    name: str
    ids: list[int]
    positions: list[int]
    before: SourceSlices
    references: int = 0
    epoch: int = 0
    computing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def slices(self, start: int, stop: int) -> SourceSlices:
        """Where a part of its tokens was computed."""
        return cut((*self.before, SourceSlice(self, length(self.before), len(self.ids))), start, stop)


def length(slices: SourceSlices) -> int:
    """How many tokens."""
    return sum(part.stop - part.start for part in slices)


def cut(slices: SourceSlices, start: int, stop: int) -> SourceSlices:
    """The tokens ``start`` to ``stop`` of slices that follow one another."""
    found, place = [], 0
    for part in slices:
        first, last = max(0, start - place), min(part.stop - part.start, stop - place)
        if first < last:
            found.append(SourceSlice(part.source, part.start + first, part.start + last))
        place += part.stop - part.start
    return tuple(found)


def concatenate(parts: Iterable[SourceSlices]) -> SourceSlices:
    """One after the other; neighbours that follow on one another in their source become one."""
    found: list[SourceSlice] = []
    for part in (part for slices in parts for part in slices):
        if found and found[-1].source is part.source and found[-1].stop == part.start:
            found[-1] = SourceSlice(part.source, found[-1].start, part.stop)
        else:
            found.append(part)
    return tuple(found)
