"""Attention over the KV pool: writes the KV of a packed row of new tokens, then attends.

A row mixes the tokens of many requests. Each token sees all earlier tokens of its own request, at any positions.
Requests with one new token are computed in groups: the KV of a prefix that all members share is read once for the whole
group and never copied for each.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface

from parallel_reason.engines.torch.pool import KVPool, Slots

IMPLEMENTATION = "parallel_reason"  # name in transformers' registry; no mask is registered under it, so none is built
SlotIndex: TypeAlias = slice | Tensor

# Attention of one layer: (layer, query, key, value, options) -> output; shapes as in `StepAttention.__call__`.
AttentionFunction = Callable[[int, Tensor, Tensor, Tensor, dict[str, Any]], Tensor]
# What the attention layers of the model call in the forward pass that runs in this thread.
current_attention: ContextVar[AttentionFunction] = ContextVar("current_attention")


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Requests with one new token each.

    Attributes:
        rows: their tokens in the packed row, one each.
        shared: slots of the prefix that all of them begin with; None if there is none.
        own: the other slots of each, the new token's last, padded to the longest, [members * longest].
        padding: True where ``own`` is padding, [members, 1, longest]; None if nothing is.
    """

    rows: slice
    shared: SlotIndex | None
    own: Tensor
    padding: Tensor | None


@dataclass(frozen=True, slots=True)
class Prefill:
    """One request with several new tokens.

    Attributes:
        rows: its new tokens in the packed row.
        context: slots of all its tokens, those of the new ones last.
    """

    rows: slice
    context: SlotIndex


@dataclass(frozen=True, slots=True)
class StepAttention:
    """Attention in one forward pass.

    Attributes:
        new: the slot of every token of the packed row, [tokens].
    """

    pool: KVPool
    new: Tensor
    groups: list[DecodeGroup]
    prefills: list[Prefill]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """Attention of one layer.

        Args:
            query: [1, heads, tokens, key dim].
            key, value: [1, KV heads, tokens, key or value dim].
            options: what transformers passes to an attention function.

        Returns:
            [1, tokens, heads, value dim].
        """
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        keys.index_copy_(1, self.new, key[0])
        values.index_copy_(1, self.new, value[0])
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        softcap = options.get("softcap")
        parts = [_decode(group, query[0, :, group.rows] * scaling, keys, values, softcap) for group in self.groups]
        parts += [_prefill(part, query[0, :, part.rows] * scaling, keys, values, softcap) for part in self.prefills]
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]


def slot_index(slots: Slots, device: torch.device) -> SlotIndex:
    """Slots as a slice, which is read without a copy, if they are contiguous; else as a tensor, [slots]."""
    if slots[-1] - slots[0] + 1 == len(slots) and bool(np.all(slots[1:] > slots[:-1])):
        return slice(int(slots[0]), int(slots[-1]) + 1)
    return torch.from_numpy(slots).to(device)


def _read(cache: Tensor, index: SlotIndex) -> Tensor:
    part: Tensor = cache[:, index] if isinstance(index, slice) else cache.index_select(1, index)
    return part


def _decode(group: DecodeGroup, query: Tensor, keys: Tensor, values: Tensor, softcap: float | None) -> Tensor:
    """Attention of a group, [heads, members, key dim] -> [members, heads, value dim]."""
    heads, members, _ = query.shape
    kv_heads = len(keys)
    per_kv_head = heads // kv_heads
    query = query.view(kv_heads, per_kv_head, members, -1).transpose(1, 2)  # [KV heads, members, per KV head, key dim]
    own = keys.index_select(1, group.own).view(kv_heads, members, -1, keys.shape[2])
    scores = query @ own.transpose(2, 3)
    width = 0
    if group.shared is not None:
        shared = _read(keys, group.shared)
        width = shared.shape[1]
        prefix_scores = query.reshape(kv_heads, members * per_kv_head, -1) @ shared.transpose(1, 2)
        scores = torch.cat([prefix_scores.view(kv_heads, members, per_kv_head, width), scores], dim=3)
    weights = _weights(scores, softcap, width, group.padding)
    own = values.index_select(1, group.own).view(kv_heads, members, -1, values.shape[2])
    output = weights[..., width:] @ own
    if group.shared is not None:
        prefix_weights = weights[..., :width].reshape(kv_heads, members * per_kv_head, width)
        output += (prefix_weights @ _read(values, group.shared)).view_as(output)
    return output.transpose(0, 1).reshape(members, heads, -1)


def _prefill(prefill: Prefill, query: Tensor, keys: Tensor, values: Tensor, softcap: float | None) -> Tensor:
    """Causal attention of one request, [heads, new, key dim] -> [new, heads, value dim]."""
    heads, new, _ = query.shape
    keys, values = _read(keys, prefill.context), _read(values, prefill.context)
    kv_heads, context, _ = keys.shape
    if softcap is None:
        causal = {"is_causal": True} if new == context else {"attn_mask": causal_lower_right(new, context)}
        output = F.scaled_dot_product_attention(
            query[None], keys[None], values[None], scale=1.0, enable_gqa=heads != kv_heads, **causal
        )
        return output[0].transpose(0, 1)
    scores = (query.reshape(kv_heads, -1, keys.shape[2]) @ keys.transpose(1, 2)).view(kv_heads, -1, new, context)
    later = torch.ones(new, context, dtype=torch.bool, device=keys.device).triu(context - new + 1)
    weights = _weights(scores, softcap, 0, later)
    return (weights.view(kv_heads, -1, context) @ values).view(heads, new, -1).transpose(0, 1)


def _weights(scores: Tensor, softcap: float | None, width: int, hidden: Tensor | None) -> Tensor:
    """Softmax over the last dimension in fp32; 0 where ``hidden``, which covers the columns from ``width`` on."""
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if hidden is not None:
        scores[..., width:].masked_fill_(hidden, float("-inf"))
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    return current_attention.get()(module.layer_idx, query, key, value, options), None


AttentionInterface.register(IMPLEMENTATION, _attend)
