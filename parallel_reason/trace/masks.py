"""A layout's visibility as torch's attention takes it: a dense mask for SDPA, a block mask for FlexAttention.

Both are made from the same intervals. The dense one is quadratic in the tokens, one byte a pair. The block mask is
quadratic in blocks of 128 tokens, 16 bytes a pair: for 32,768 tokens 1 MB instead of 1 GB. Attention over it skips
every block of 128 x 128 tokens that nobody sees.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from parallel_reason.trace.layout import Layout

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def dense(row: Layout) -> Tensor:
    """Boolean, [tokens, tokens]: True where token i (row) sees token j (column)."""
    return torch.from_numpy(row.mask())


def flex(row: Layout, device: str = "cpu", block: int = 128) -> "BlockMask":
    """A ``BlockMask`` over [1, 1, tokens, tokens], for ``torch.nn.attention.flex_attention``.

    Its memory is 16 bytes a pair of blocks, seen or not, since torch lists the blocks of every row in full width; and,
    for blocks that are seen in part, what `Layout.intervals` takes.
    """
    from torch.nn.attention.flex_attention import BlockMask

    owner, table = (torch.from_numpy(array).to(device) for array in row.intervals())

    def sees(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        intervals = table[owner[i]]  # [..., intervals, 2]
        within = (intervals[..., 0] <= j[..., None]) & (j[..., None] < intervals[..., 1])
        return within.any(-1) & (j <= i)

    full, partial = _blocks(row, block)
    return BlockMask.from_kv_blocks(
        *_ordered(partial, device),
        *_ordered(full, device),
        BLOCK_SIZE=block,
        mask_mod=sees,
        seq_lengths=(len(row.ids), len(row.ids)),
    )


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
