"""The `GraftRequest` of a sequence: salts, offsets and floor are worked out here and nowhere else.

A slice of a source is in place if it begins where it began in its source, after the very slices it had before it there.
Tokens in place have the KV that plain computing would give them, so they need no salt. The first token of any other
slice does, and the first one after it, which sees something else than the slice's next token saw; and so does every
token whose offset differs from the one before it. Blocks after a salted one hash differently: hashes chain.
"""

import numpy as np

from parallel_reason.engines.vllm.graft.kv_sources import SourceSlice, SourceSlices
from parallel_reason.engines.vllm.graft.messages import GraftRequest, Offset, PinnedTokens, Salt


def graft_request(
    positions: list[int], held: SourceSlices, pinned: SourceSlices, pin_as: str | None = None
) -> GraftRequest:
    """What vLLM must know of a sequence.

    Args:
        positions: of all its tokens so far, [tokens]; those after them follow one by one.
        held: where the KV it begins with was computed.
        pinned: where that KV is pinned: the same tokens, as slices of sources whose pins have them.
        pin_as: the name to pin its blocks under.
    """
    displaced = _displaced(held)
    salts = [Salt(place, f"{part.source.name}+{part.start}") for place, part in displaced]
    salts += [Salt(place + part.stop - part.start, "end") for place, part in displaced]
    lower = np.arange(len(positions)) - np.asarray(positions)
    offsets = [Offset(int(place), int(lower[place])) for place in np.flatnonzero(np.diff(lower, prepend=0))]
    salts += [Salt(token, f"-{by}") for token, by in offsets]
    return GraftRequest(
        tokens=[PinnedTokens(part.source.name, part.start, part.stop) for part in pinned],
        salts=sorted(salts),
        offsets=offsets,
        floor=_floor(displaced),
        pin_as=pin_as,
    )


def floor_of(held: SourceSlices) -> int:
    """The floor of a sequence that begins with these slices; see `GraftRequest`."""
    return _floor(_displaced(held))


def _floor(displaced: list[tuple[int, SourceSlice]]) -> int:
    return max((place + part.stop - part.start for place, part in displaced), default=0)


def _displaced(held: SourceSlices) -> list[tuple[int, SourceSlice]]:
    """The slices that are not in place, each after the place where it begins."""
    found, place = [], 0
    for number, part in enumerate(held):
        if part.start != place or part.source.slices(0, part.start) != held[:number]:
            found.append((place, part))
        place += part.stop - part.start
    return found
