"""A layout's visibility as torch's attention takes it: a dense mask for SDPA, a block mask for FlexAttention.

Both are made from the same intervals. The dense one is quadratic in the tokens, one byte a pair. The block mask is
quadratic in blocks of 128 tokens, 16 bytes a pair: for 32,768 tokens 1 MB instead of 1 GB. Attention over it skips
every block of 128 x 128 tokens that nobody sees.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallel_reason.trace.layout import Layout

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def dense(row: Layout) -> Tensor:
    """Boolean, [tokens, tokens]: True where token i (row) sees token j (column)."""
    return torch.from_numpy(row.mask())


def flex(row: Layout, device: str = "cpu", block: int = 128) -> "BlockMask":
    """A ``BlockMask`` over [1, 1, tokens, tokens], for ``torch.nn.attention.flex_attention``.

    It may be compiled with the attention, as GPUs need it: what it compiles to does not depend on the trace, but for
    sizes. Its memory is 16 bytes a pair of blocks, seen or not, since torch lists the blocks of every row in full
    width; and, for blocks that are seen in part, one byte for each segment and each place where an interval begins.
    """
    from torch.nn.attention.flex_attention import BlockMask

    owner, piece, seen = (torch.from_numpy(array).to(device) for array in _pieces(row))

    def sees(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return seen[owner[i], piece[j]] & (j <= i)  # no reduction: compiled, torch 2.13 gets it wrong

    full, partial = _blocks(row, block)
    return BlockMask.from_kv_blocks(
        *_ordered(partial, device),
        *_ordered(full, device),
        BLOCK_SIZE=block,
        mask_mod=sees,
        seq_lengths=(len(row.ids), len(row.ids)),
    )


def _pieces(row: Layout) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Visibility by pieces of the row, each of which a segment sees as a whole or not at all.

    Returns:
        The segment of every token, [tokens]; the piece that it lies in, [tokens]; and which pieces a segment sees, its
        own among them, [segments, pieces].
    """
    owner, table = row.intervals()
    begins = np.unique(table)  # where an interval begins or ends; 0 is one of them
    first, after = np.searchsorted(begins, table).transpose(2, 0, 1)
    steps = np.zeros((len(table), len(begins)), dtype=np.int32)
    segments = np.arange(len(table))[:, None]
    np.add.at(steps, (segments, first), 1)
    np.add.at(steps, (segments, after), -1)
    piece = np.searchsorted(begins, np.arange(len(row.ids)), side="right") - 1
    return owner, piece, steps.cumsum(axis=1) > 0


def _blocks(row: Layout, block: int) -> tuple[Tensor, Tensor]:
    """Which blocks every token of a block of rows sees in full, and which in part, each [rows, columns] of blocks."""
    count = -(-len(row.ids) // block)
    seen = torch.zeros(count, count, dtype=torch.long)
    for segment in row.segments:
        for first in range(segment.start // block, -(-segment.stop // block)):
            rows = range(max(segment.start, first * block), min(segment.stop, (first + 1) * block))
            for start, stop in (*segment.visible, (segment.start, rows.start)):
                _add(seen[first], start, stop, len(rows), block)
            seen[first, first] += len(rows) * (len(rows) + 1) // 2  # each other, causally
    heights = torch.full((count,), block)
    heights[-1:] = len(row.ids) - (count - 1) * block
    full = seen == heights[:, None] * heights[None, :]
    return full, (seen > 0) & ~full


def _add(seen: Tensor, start: int, stop: int, times: int, block: int) -> None:
    """Count, per block of columns, the tokens of an interval that ``times`` rows see."""
    for column in range(start // block, -(-stop // block)):
        seen[column] += times * (min(stop, (column + 1) * block) - max(start, column * block))


def _ordered(blocks: Tensor, device: str) -> tuple[Tensor, Tensor]:
    """How many columns each row of blocks has, [1, 1, rows], and their indices first, [1, 1, rows, columns]."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None].to(device), order.int()[None, None].to(device)
