"""What vLLM must know of a sequence: the only place where it is worked out.

KV is known by where it was computed: a `Run` is tokens of one `Source`. A sequence is the runs that it begins with and,
after them, the tokens that its own request computes. Five facts of it travel to vLLM:

- ``tokens``: which pinned KV its first tokens are copied from, where the prefix cache does not have them;
- ``salts``: what tells its blocks in the prefix cache from those of plain text with the same ids;
- ``offsets``: how far the rotary position of each token lies below its place in the sequence;
- ``floor``: the tokens below it were not computed in this order; to compute them again here would give other KV;
- ``pin``: the name under which its blocks are kept when it ends.

A run stands in its own place if it begins where it began in its source, after the very runs it had before it there.
Tokens in their own place have the KV that plain computing would give them here, so they need no salt. The first token
of any other run does, and the first one after it, which sees something else than the run's next token saw; and so does
every token whose offset differs from the one before it. Blocks after a salted one hash differently: hashes chain.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Run(NamedTuple):
    """The tokens ``start`` to ``stop`` of the sequence of ``source``."""

    source: "Source"
    start: int
    stop: int


Runs = tuple[Run, ...]


@dataclass(eq=False, slots=True)
class Source:
    """A sequence, some of whose KV one request computed; all that is needed to compute it once more.

    Attributes:
        name: unique in the engine; it is pinned under this.
        ids, positions: of all its tokens.
        before: the KV that it began with.
        holders: who counts on its pin.
        epoch: how often it has been computed again; ``computing`` while it is.
    """

    name: str
    ids: list[int]
    positions: list[int]
    before: Runs
    holders: int = 0
    epoch: int = 0
    computing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def runs(self, start: int, stop: int) -> Runs:
        """Where a part of its tokens was computed."""
        return cut((*self.before, Run(self, length(self.before), len(self.ids))), start, stop)


@dataclass(frozen=True, slots=True)
class Facts:
    """See the module; plain values, as they travel.

    Attributes:
        tokens: ``(pin, start, stop)``, side by side from token 0.
        salts: ``(token, salt)``.
        offsets: ``(token, offset)``, from that token on.
    """

    tokens: list[tuple[str, int, int]] = field(default_factory=list)
    salts: list[tuple[int, str]] = field(default_factory=list)
    offsets: list[tuple[int, int]] = field(default_factory=list)
    floor: int = 0
    pin: str | None = None

    def travel(self) -> dict[str, Any]:
        """As parameters of a vLLM request."""
        return {name: getattr(self, name) for name in self.__slots__}


def facts(positions: list[int], held: Runs, pins: Runs, pin: str | None) -> Facts:
    """The facts of a sequence.

    Args:
        positions: of all its tokens so far; those after them follow one by one.
        held: where the KV it begins with was computed.
        pins: where that KV is pinned: the same tokens, named by sources whose pins have them.
        pin: the name to keep it under.
    """
    strangers = _strangers(held)
    salts = [(place, f"{run.source.name}+{run.start}") for place, run in strangers]
    salts += [(place + run.stop - run.start, "end") for place, run in strangers]
    offset = np.arange(len(positions)) - np.asarray(positions)
    changes = np.flatnonzero(np.diff(offset, prepend=0))
    offsets = [(int(place), int(offset[place])) for place in changes]
    salts += [(place, f"-{by}") for place, by in offsets]
    tokens = [(run.source.name, run.start, run.stop) for run in pins]
    return Facts(tokens, sorted(salts), offsets, _floor(strangers), pin)


def floor_of(held: Runs) -> int:
    """The floor of a sequence that begins with these runs."""
    return _floor(_strangers(held))


def _floor(strangers: list[tuple[int, Run]]) -> int:
    return max((place + run.stop - run.start for place, run in strangers), default=0)


def _strangers(held: Runs) -> list[tuple[int, Run]]:
    """The runs that do not stand in their own place, and where they stand."""
    found, place = [], 0
    for number, run in enumerate(held):
        if run.start != place or run.source.runs(0, run.start) != held[:number]:
            found.append((place, run))
        place += run.stop - run.start
    return found


def length(runs: Runs) -> int:
    """How many tokens."""
    return sum(run.stop - run.start for run in runs)


def cut(runs: Runs, start: int, stop: int) -> Runs:
    """A part of them."""
    found, place = [], 0
    for run in runs:
        first, last = max(0, start - place), min(run.stop - run.start, stop - place)
        if first < last:
            found.append(Run(run.source, run.start + first, run.start + last))
        place += run.stop - run.start
    return tuple(found)


def join(parts: list[Runs]) -> Runs:
    """One after the other; neighbours that follow on one another in their source become one."""
    found: list[Run] = []
    for run in (run for part in parts for run in part):
        if found and found[-1].source is run.source and found[-1].stop == run.start:
            found[-1] = Run(run.source, found[-1].start, run.stop)
        else:
            found.append(run)
    return tuple(found)
