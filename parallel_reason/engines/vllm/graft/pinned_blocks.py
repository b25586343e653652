"""Blocks that stay in vLLM's block pool after their request has ended.

A pin is one more reference on the blocks of a request, under a name. When nothing can be scheduled for want of blocks,
the pins used longest ago are given up, those that the waiting request itself begins with last.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_reason.engines.vllm.graft.messages import PinnedTokens

Ints = NDArray[np.int64]


@dataclass(slots=True)
class Pin:
    """Blocks that stay.

    Attributes:
        tokens: how many tokens' KV lies in them, from the first on.
    """

    blocks: list[Any]
    tokens: int


class PinnedBlocks:
    """All pins of one scheduler.

    Attributes:
        pool: vLLM's ``BlockPool``.
        pins: by name; the one used longest ago comes first.
    """

    def __init__(self, block_size: int) -> None:
        """None yet."""
        self.block_size = block_size
        self.pool: Any = None
        self.pins: dict[str, Pin] = {}

    def pin(self, name: str, block_ids: list[int], tokens: int) -> None:
        """Pin blocks under a name; those it named before are released."""
        blocks = [self.pool.blocks[block] for block in block_ids]
        self.pool.touch(blocks)
        self.release(name)
        self.pins[name] = Pin(blocks, tokens)

    def release(self, name: str) -> None:
        """Release a pin; unknown names are ignored."""
        if pin := self.pins.pop(name, None):
            self.pool.free_blocks(reversed(pin.blocks))

    def release_all(self) -> None:
        """Release every pin."""
        for name in list(self.pins):
            self.release(name)

    def has(self, tokens: Iterable[PinnedTokens]) -> bool:
        """Whether all of these tokens are pinned."""
        return all(name in self.pins and self.pins[name].tokens >= stop for name, _, stop in tokens)

    def slots(self, tokens: Iterable[PinnedTokens], first: int) -> Ints:
        """The slots of these tokens without the ``first`` of them, [tokens]; their pins count as used."""
        parts, place = [], 0
        for name, start, stop in tokens:
            skip = min(max(0, first - place), stop - start)
            place += stop - start
            self.pins[name] = self.pins.pop(name)
            ids = [block.block_id for block in self.pins[name].blocks]
            parts.append(slots_of(ids, start + skip, stop, self.block_size))
        return np.concatenate(parts)

    def make_room(self, blocks: int, spare: set[str]) -> None:
        """Give up pins until so many blocks are free; those named in ``spare`` only if there are no others."""
        names = [name for name in self.pins if name not in spare] or list(self.pins)
        for name in names:
            self.release(name)
            if self.pool.get_num_free_blocks() >= blocks:
                return


def slots_of(block_ids: list[int], start: int, stop: int, block_size: int) -> Ints:
    """The slots of the tokens ``start`` to ``stop`` of a sequence that has these blocks, [tokens]."""
    places = np.arange(start, stop)
    slots: Ints = np.asarray(block_ids, dtype=np.int64)[places // block_size] * block_size + places % block_size
    return slots
