"""Traces as training rows: every token once, with the positions and the visibility of the run, in one forward pass.

Both come from `layout`. A value that belongs to a sampled token stands at the place of the token whose logits predict
it, as TRL's ``shift_labels`` do: labels, the sampler's log-probs, policy versions, advantages and weights alike.

Invariant: every sampled token is the label of one place, and no prompt, injected or copied token is the label of any.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from parallel_reason import Trace, layout
from parallel_reason.trace.layout import visibility

IGNORED = -100  # the label of torch's cross entropy that adds no loss


def pack(trace: Trace) -> dict[str, Any]:
    """One trace as a row of lists, [tokens] each but for ``segments``, the intervals of its mask.

    ``input_ids``, ``position_ids``; at the places that predict a sampled token ``shift_labels``, the token,
    ``sampler_logprobs``, its natural-log probability at temperature 1 under the policy that sampled it,
    ``policy_versions``, which policy that was, and ``threads``, the index of its thread in ``trace.threads``.
    Elsewhere, or where it is unknown, they are `IGNORED`, NaN, -1 and -1.

    Raises:
        ValueError: a sampled token has nothing before it, or follows a token that predicts another.
    """
    row = layout(trace)
    tokens = len(row.ids)
    labels, logprobs = np.full(tokens, IGNORED), np.full(tokens, np.nan)
    versions, threads = np.full(tokens, -1), np.full(tokens, -1)
    owners = np.array([segment.thread for segment in row.segments for _ in range(segment.start, segment.stop)])
    for index in row.sampled.nonzero()[0]:
        before = row.previous[index]
        if before < 0 or labels[before] != IGNORED:
            raise ValueError(f"token {index} of the layout has no token of its own that predicts it")
        labels[before] = row.ids[index]
        logprobs[before] = row.logprobs[index]
        versions[before] = row.policy_versions[index]
        threads[before] = owners[index]
    return {
        "input_ids": row.ids.tolist(),
        "position_ids": row.positions.tolist(),
        "shift_labels": labels.tolist(),
        "sampler_logprobs": logprobs.tolist(),
        "policy_versions": versions.tolist(),
        "threads": threads.tolist(),
        "segments": [[s.start, s.stop, [list(interval) for interval in s.visible]] for s in row.segments],
    }


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """What a model and a loss over all labels take, padded, [rows, tokens].

    ``attention_mask`` is boolean, [rows, 1, tokens, tokens].
    """
    longest = max(len(row["input_ids"]) for row in rows)
    visible = np.stack([visibility(row["segments"], longest) for row in rows])
    mask = torch.from_numpy(visible) | torch.eye(longest, dtype=torch.bool)  # padding sees itself: else its row is NaN
    return {
        "input_ids": padded(rows, "input_ids", 0),
        "position_ids": padded(rows, "position_ids", 0),
        "shift_labels": padded(rows, "shift_labels", IGNORED),
        "attention_mask": mask[:, None],
    }


def padded(rows: list[dict[str, Any]], name: str, value: float) -> Tensor:
    """One column of all rows, [rows, tokens]; ``value`` where a row has ended."""
    return pad_sequence([torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=value)
