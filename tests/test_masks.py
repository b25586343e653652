"""Masks from a layout's intervals against the most naive reading of its visibility."""

import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from torch.nn.attention.flex_attention import create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from parallel_reason.trace import layout
from parallel_reason.trace.masks import dense, flex
from tests.rows import row_of_all_dialects
from tests.strategies import traces

BLOCK = 4
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def whole_blocks(seen):
    """Which blocks hold a token that is seen, and which are seen in full, [rows, columns] of blocks."""
    count = -(-len(seen) // BLOCK)
    parts = [
        [seen[BLOCK * i : BLOCK * i + BLOCK, BLOCK * j : BLOCK * j + BLOCK] for j in range(count)] for i in range(count)
    ]
    return [[bool(part.any()) for part in row] for row in parts], [[bool(part.all()) for part in row] for row in parts]


@settings(max_examples=25)
@given(traces(wild=True))
def test_both_masks_show_what_the_layout_shows(trace):
    row = layout(trace)
    if not len(row.ids):
        return
    seen = torch.from_numpy(row.mask())
    blocks = flex(row, block=BLOCK)
    assert torch.equal(dense(row), seen)
    assert torch.equal(create_mask(blocks.mask_mod, 1, 1, len(row.ids), len(row.ids), device="cpu")[0, 0], seen)
    some, full = whole_blocks(seen)
    assert blocks.to_dense()[0, 0].bool().tolist() == some
    for i, (count, columns) in enumerate(
        zip(blocks.full_kv_num_blocks[0, 0], blocks.full_kv_indices[0, 0], strict=True)
    ):
        assert sorted(columns[:count].tolist()) == [j for j, whole in enumerate(full[i]) if whole]


@pytest.mark.parametrize(
    "compiled",
    [False, pytest.param(True, marks=pytest.mark.skipif(not COMPILER, reason="needs a C++ compiler"))],
    ids=["as it is", "compiled"],
)
def test_flex_attention_over_the_block_mask_is_sdpa_over_the_dense_one(compiled):
    row = row_of_all_dialects()  # one shape: compiling takes a while
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, len(row.ids), 16)
    blocks = flex(row)
    assert blocks.sparsity() > 20  # per cent of blocks that nobody computes
    attend = torch.compile(flex_attention, dynamic=False, fullgraph=True) if compiled else flex_attention
    ours = attend(query, key, value, block_mask=blocks)
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=dense(row))
    assert torch.allclose(ours, wanted, atol=1e-5)
