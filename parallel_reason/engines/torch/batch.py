"""The packed row of one step: the new tokens of many requests, and how each attends."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from parallel_reason.engines.torch.attention import DecodeGroup, Prefill, StepAttention, slot_index
from parallel_reason.engines.torch.pool import KVPool, Slots
from parallel_reason.engines.torch.request import RequestState


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A request that runs in a step.

    Attributes:
        new: slots of the tokens that the step computes, [new tokens].
    """

    state: RequestState
    new: Slots


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one forward pass.

    Attributes:
        ids, positions: of the packed row, [tokens].
        sampling: requests that sample a token after the step.
        logits_rows: where in the row the last token of each of them is, [sampling].
    """

    ids: list[int]
    positions: list[int]
    attention: StepAttention
    sampling: list[RequestState]
    logits_rows: list[int]


def pack(scheduled: list[Scheduled], pool: KVPool, device: torch.device) -> Batch:
    """Requests with one new token first, group by group; then each prefill."""
    order: list[Scheduled] = []
    groups: list[DecodeGroup] = []
    for shared, members in _grouped([one for one in scheduled if len(one.new) == 1]):
        groups.append(_decode_group(slice(len(order), len(order) + len(members)), shared, members, device))
        order += members
    row = len(order)
    prefills: list[Prefill] = []
    for one in scheduled:
        if len(one.new) > 1:
            prefills.append(Prefill(slice(row, row + len(one.new)), slot_index(one.state.slots, device)))
            order.append(one)
            row += len(one.new)
    new = to_device(np.concatenate([one.new for one in order]), device)
    batch = Batch([], [], StepAttention(pool, new, groups, prefills), [], [])
    for one in order:
        part = slice(one.state.computed - len(one.new), one.state.computed)
        batch.ids.extend(one.state.tokens[part])
        batch.positions.extend(one.state.positions[part])
        if one.state.needs_logits:
            batch.sampling.append(one.state)
            batch.logits_rows.append(len(batch.ids) - 1)
    return batch


def to_device(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", device: torch.device) -> Tensor:
    """An array as a tensor, of the same shape."""
    return torch.from_numpy(array).to(device)


def _grouped(decoding: list[Scheduled]) -> list[tuple[bytes, list[Scheduled]]]:
    """Requests by the slots they share; those that share none with another, by similar length, to pad little."""
    by_prefix: dict[bytes, list[Scheduled]] = defaultdict(list)
    for one in decoding:
        by_prefix[one.state.shared].append(one)
    groups = [(shared, members) for shared, members in by_prefix.items() if shared and len(members) > 1]
    by_length: dict[int, list[Scheduled]] = defaultdict(list)
    for shared, members in by_prefix.items():
        if not shared or len(members) == 1:
            for one in members:
                by_length[one.state.computed.bit_length()].append(one)
    return groups + [(b"", members) for members in by_length.values()]


def _decode_group(rows: slice, shared: bytes, members: list[Scheduled], device: torch.device) -> DecodeGroup:
    prefix: Slots = np.frombuffer(bytearray(shared), dtype=np.int64)
    own = [one.state.slots[len(prefix) :] for one in members]
    lengths = np.array([len(slots) for slots in own])
    table = np.empty((len(own), lengths.max()), dtype=np.int64)  # [members, longest]
    for member, slots in zip(table, own, strict=True):
        member[: len(slots)] = slots
        member[len(slots) :] = slots[0]
    padding = np.arange(table.shape[1]) >= lengths[:, None]
    return DecodeGroup(
        rows=rows,
        shared=slot_index(prefix, device) if shared else None,
        own=to_device(table.reshape(-1), device),
        padding=to_device(padding[:, None], device) if padding.any() else None,
    )
