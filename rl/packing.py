"""Traces as training rows: every token once, with the positions and the visibility of the run, in one forward pass.

Both come from `layout`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parallel_reason import Trace, layout
from parallel_reason.trace.layout import visibility

IGNORED = -100  # the label of torch's cross entropy that adds no loss


def pack(trace: Trace) -> dict[str, Any]:
    """One trace as a row: ``input_ids``, ``position_ids``, ``shift_labels`` [tokens] and the ``segments`` of its mask.

    ``shift_labels`` at a token is the sampled token that its logits predict, and `IGNORED` elsewhere: every sampled
    token is trained on once, and no other token is.

    Raises:
        ValueError: a sampled token has nothing before it, or follows a token that predicts another.
    """
    row = layout(trace)
    labels = [IGNORED] * len(row.ids)
    for index in row.sampled.nonzero()[0]:
        before = row.previous[index]
        if before < 0 or labels[before] != IGNORED:
            raise ValueError(f"token {index} of the layout has no token of its own that predicts it")
        labels[before] = int(row.ids[index])
    return {
        "input_ids": row.ids.tolist(),
        "position_ids": row.positions.tolist(),
        "shift_labels": labels,
        "segments": [[s.start, s.stop, [list(interval) for interval in s.visible]] for s in row.segments],
    }


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Rows to a padded batch [rows, tokens]; ``attention_mask`` is boolean [rows, 1, tokens, tokens]."""
    longest = max(len(row["input_ids"]) for row in rows)
    shape = (len(rows), longest)
    batch = {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "position_ids": torch.zeros(shape, dtype=torch.long),
        "shift_labels": torch.full(shape, IGNORED),
    }
    for number, row in enumerate(rows):
        for name, values in batch.items():
            values[number, : len(row["input_ids"])] = torch.tensor(row[name])
    visible = np.stack([visibility(row["segments"], longest) for row in rows])
    mask = torch.from_numpy(visible) | torch.eye(longest, dtype=torch.bool)  # padding sees itself: else its row is NaN
    return {**batch, "attention_mask": mask[:, None]}
