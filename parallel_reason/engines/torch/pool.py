"""The KV cache of the torch engine: one pool of slots, one slot a token, shared by reference counts.

A slot is free when its count is 0. Code that takes or shares slots releases them once; several requests and handles may
hold the same slot.
"""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_reason.errors import EngineError

Slots = NDArray[np.int64]
LayerShape = tuple[int, int, int]  # KV heads, key dim, value dim
NO_SLOTS: Slots = np.empty(0, dtype=np.int64)
FIRST_CAPACITY = 1024  # slots of the first allocation


class KVPool:
    """Keys and values of every layer, and the reference count of every slot.

    Attributes:
        keys, values: one tensor for each layer, [KV heads, slots, key or value dim].
        limit: the pool never grows beyond this many slots.
        slot_bytes: bytes of one token over all layers.
    """

    def __init__(self, shapes: list[LayerShape], limit: int, dtype: torch.dtype, device: torch.device) -> None:
        """Make an empty pool; memory is allocated when slots are first taken.

        Args:
            shapes: of the KV of one token, [layers].
        """
        self.keys = [torch.empty(heads, 0, key, dtype=dtype, device=device) for heads, key, _ in shapes]
        self.values = [torch.empty(heads, 0, value, dtype=dtype, device=device) for heads, _, value in shapes]
        self.limit = limit
        self.slot_bytes: int = sum(heads * (key + value) for heads, key, value in shapes) * dtype.itemsize
        self._counts = np.zeros(0, dtype=np.int32)  # [slots]
        self._free = NO_SLOTS  # free slots found by the last search and not taken since, ascending
        self._lock = Lock()  # the event loop releases handles while the worker thread takes slots

    def take(self, count: int) -> Slots:
        """Free slots in ascending order, contiguous where possible; grows the pool when few are left.

        Raises:
            EngineError: the pool is full and at its limit.
        """
        with self._lock:
            if len(self._free) < count:
                self._free = np.flatnonzero(self._counts == 0)
                capacity = len(self._counts)
                if len(self._free) < count + capacity // 16 and capacity < self.limit:
                    self._grow(min(self.limit, max(2 * capacity, capacity + count, FIRST_CAPACITY)))
            if len(self._free) < count:
                raise EngineError(
                    f"engine 'torch' is out of KV memory: all {self.limit} tokens are in use; run fewer threads at "
                    "once, release KV that is held, or start it with a larger kv_tokens"
                )
            slots, self._free = self._free[:count], self._free[count:]
            self._counts[slots] = 1
            return slots

    def share(self, slots: Slots) -> None:
        """Add 1 to the count of each."""
        with self._lock:
            self._counts[slots] += 1

    def release(self, slots: Slots) -> None:
        """Subtract 1 from the count of each."""
        with self._lock:
            self._counts[slots] -= 1

    def used(self) -> int:
        """How many slots are not free."""
        with self._lock:
            return int(np.count_nonzero(self._counts))

    def _grow(self, capacity: int) -> None:
        before = len(self._counts)
        for layers in (self.keys, self.values):
            for number, old in enumerate(layers):
                new = old.new_empty(old.shape[0], capacity, old.shape[2])
                new[:, :before] = old[:, :before]
                layers[number] = new
        self._counts = np.concatenate([self._counts, np.zeros(capacity - before, dtype=np.int32)])
        self._free = np.concatenate([self._free, np.arange(before, capacity)])
