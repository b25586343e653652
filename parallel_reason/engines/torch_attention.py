"""Attention over the pool: writes the KV of a packed row of new tokens, then lets each see what its request holds.

A row mixes the tokens of many requests. Each token sees all tokens its request already holds and the earlier new ones
of its own request; nothing here looks at positions. Requests with one new token go in families: what all members hold
in common is read once for the whole family, never copied for each.
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

from parallel_reason.engines.torch_kv import Pool, Slots

NAME = "parallel_reason"  # of this attention in transformers; it has no mask of its own there, so none is ever built
Places: TypeAlias = slice | Tensor

# What an attention layer of the model running in this thread calls: (layer, query, key, value, options) -> output.
Layer = Callable[[int, Tensor, Tensor, Tensor, dict[str, Any]], Tensor]
layer_of: ContextVar[Layer] = ContextVar("layer_of")


@dataclass(frozen=True, slots=True)
class Family:
    """Requests with one new token each.

    Attributes:
        rows: their tokens in the packed row, one each.
        shared: slots that all of them see first; None if there are none.
        own: the other slots of each, the new token's last, padded to the longest, [members * longest].
        padding: True where ``own`` is padding, [members, 1, longest]; None if nothing is.
    """

    rows: slice
    shared: Places | None
    own: Tensor
    padding: Tensor | None


@dataclass(frozen=True, slots=True)
class Prefill:
    """One request with several new tokens.

    Attributes:
        rows: its tokens in the packed row.
        seen: slots of all it holds, the new tokens' last.
    """

    rows: slice
    seen: Places


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass of the model.

    Attributes:
        new: the slot of every token of the packed row, [tokens].
    """

    pool: Pool
    new: Tensor
    families: list[Family]
    prefills: list[Prefill]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        """Attention of one layer.

        Args:
            query: [1, heads, tokens, key dim].
            key, value: [1, kv heads, tokens, dim].

        Returns:
            [1, tokens, heads, value dim].
        """
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        keys.index_copy_(1, self.new, key[0])
        values.index_copy_(1, self.new, value[0])
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        softcap = options.get("softcap")
        parts = [_together(f, query[0, :, f.rows] * scaling, keys, values, softcap) for f in self.families]
        parts += [_alone(p, query[0, :, p.rows] * scaling, keys, values, softcap) for p in self.prefills]
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]


def places(slots: Slots, device: torch.device) -> Places:
    """Slots as a slice, which is read in place, if they lie side by side."""
    if slots[-1] - slots[0] + 1 == len(slots) and bool(np.all(slots[1:] > slots[:-1])):
        return slice(int(slots[0]), int(slots[-1]) + 1)
    return torch.from_numpy(slots).to(device)


def _read(cache: Tensor, where: Places) -> Tensor:
    part: Tensor = cache[:, where] if isinstance(where, slice) else cache.index_select(1, where)
    return part


def _together(family: Family, query: Tensor, keys: Tensor, values: Tensor, softcap: float | None) -> Tensor:
    """Attention of a family, [heads, members, key dim] -> [members, heads, value dim]."""
    heads, members, _ = query.shape
    kv_heads = len(keys)
    group = heads // kv_heads
    query = query.view(kv_heads, group, members, -1).transpose(1, 2)  # [kv heads, members, group, key dim]
    own = keys.index_select(1, family.own).view(kv_heads, members, -1, keys.shape[2])
    scores = query @ own.transpose(2, 3)
    width = 0
    if family.shared is not None:
        shared = _read(keys, family.shared)
        width = shared.shape[1]
        ahead = query.reshape(kv_heads, members * group, -1) @ shared.transpose(1, 2)
        scores = torch.cat([ahead.view(kv_heads, members, group, width), scores], dim=3)
    weights = _weights(scores, softcap, width, family.padding)
    own = values.index_select(1, family.own).view(kv_heads, members, -1, values.shape[2])
    output = weights[..., width:] @ own
    if family.shared is not None:
        ahead = weights[..., :width].reshape(kv_heads, members * group, width) @ _read(values, family.shared)
        output += ahead.view_as(output)
    return output.transpose(0, 1).reshape(members, heads, -1)


def _alone(prefill: Prefill, query: Tensor, keys: Tensor, values: Tensor, softcap: float | None) -> Tensor:
    """Causal attention of one request, [heads, new, key dim] -> [new, heads, value dim]."""
    heads, new, _ = query.shape
    keys, values = _read(keys, prefill.seen), _read(values, prefill.seen)
    kv_heads, seen, _ = keys.shape
    if softcap is None:
        causal = {"is_causal": True} if new == seen else {"attn_mask": causal_lower_right(new, seen)}
        output = F.scaled_dot_product_attention(
            query[None], keys[None], values[None], scale=1.0, enable_gqa=heads != kv_heads, **causal
        )
        return output[0].transpose(0, 1)
    scores = (query.reshape(kv_heads, -1, keys.shape[2]) @ keys.transpose(1, 2)).view(kv_heads, -1, new, seen)
    later = torch.ones(new, seen, dtype=torch.bool, device=keys.device).triu(seen - new + 1)
    weights = _weights(scores, softcap, 0, later)
    return (weights.view(kv_heads, -1, seen) @ values).view(heads, new, -1).transpose(0, 1)


def _weights(scores: Tensor, softcap: float | None, width: int, hidden: Tensor | None) -> Tensor:
    """Softmax over the last dimension in fp32, nothing where ``hidden`` from column ``width`` on."""
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if hidden is not None:
        scores[..., width:].masked_fill_(hidden, float("-inf"))
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    return layer_of.get()(module.layer_idx, query, key, value, options), None


AttentionInterface.register(NAME, _attention)
