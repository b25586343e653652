"""KV of all tokens that the torch engine holds: one pool of slots, one slot a token, shared by counting.

A slot is free when nobody counts on it. Whoever takes or shares slots releases them once; several may hold the same.
"""

from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_reason.errors import EngineError, InputError

Slots = NDArray[np.int64]
Shape = tuple[int, int, int]
NONE: Slots = np.empty(0, dtype=np.int64)
SMALLEST = 1024  # slots of a pool at first


class Pool:
    """Keys and values of every layer, and who counts on each slot.

    Attributes:
        keys, values: a tensor a layer, [kv heads, slots, head dim].
        limit: it never grows beyond this many slots.
        slot_bytes: what one token holds over all layers.
    """

    def __init__(self, shapes: list[Shape], limit: int, dtype: torch.dtype, device: torch.device) -> None:
        """No slots yet.

        Args:
            shapes: of every layer, (kv heads, key dim, value dim).
        """
        self.keys = [torch.empty(heads, 0, key, dtype=dtype, device=device) for heads, key, _ in shapes]
        self.values = [torch.empty(heads, 0, value, dtype=dtype, device=device) for heads, _, value in shapes]
        self.limit = limit
        self.slot_bytes: int = sum(heads * (key + value) for heads, key, value in shapes) * dtype.itemsize
        self._holders = np.zeros(0, dtype=np.int32)  # [slots]
        self._free = NONE  # unheld slots not handed out since they were last looked for, in order
        self._lock = Lock()  # handles are released while a step takes slots

    def take(self, count: int) -> Slots:
        """Free slots in ascending order, side by side where possible; the pool grows when few are left.

        Raises:
            EngineError: it cannot grow any more.
        """
        with self._lock:
            if len(self._free) < count:
                self._free = np.flatnonzero(self._holders == 0)
                capacity = len(self._holders)
                if len(self._free) < count + capacity // 16 and capacity < self.limit:
                    self._grow(min(self.limit, max(2 * capacity, capacity + count, SMALLEST)))
            if len(self._free) < count:
                raise EngineError(
                    f"engine 'torch' is out of KV memory: {self.limit} tokens are held; run fewer threads at once, "
                    "release held KV, or start it with a larger kv_tokens"
                )
            slots, self._free = self._free[:count], self._free[count:]
            self._holders[slots] = 1
            return slots

    def share(self, slots: Slots) -> None:
        """Count one more holder of each."""
        with self._lock:
            self._holders[slots] += 1

    def release(self, slots: Slots) -> None:
        """Count one holder less of each."""
        with self._lock:
            self._holders[slots] -= 1

    def live(self) -> int:
        """How many slots are held."""
        with self._lock:
            return int(np.count_nonzero(self._holders))

    def _grow(self, capacity: int) -> None:
        before = len(self._holders)
        for layers in (self.keys, self.values):
            for number, old in enumerate(layers):
                new = old.new_empty(old.shape[0], capacity, old.shape[2])
                new[:, :before] = old[:, :before]
                layers[number] = new
        self._holders = np.concatenate([self._holders, np.zeros(capacity - before, dtype=np.int32)])
        self._free = np.concatenate([self._free, np.arange(before, capacity)])


class Kv:
    """KV of a run of tokens; see `KV` of the engines' protocol."""

    def __init__(self, pool: Pool, slots: Slots) -> None:
        """Take over one count on each of ``slots``."""
        self.pool = pool
        self._slots: Slots | None = slots
        self._length = len(slots)

    @property
    def slots(self) -> Slots:
        """Where the tokens lie, in order.

        Raises:
            InputError: it was released.
        """
        if self._slots is None:
            raise InputError("this KV was released; hold it until every request that needs it has begun")
        return self._slots

    def __len__(self) -> int:
        """How many tokens."""
        return self._length

    def __getitem__(self, part: slice) -> "Kv":
        """KV of a part of the tokens, to be released on its own."""
        slots = self.slots[part].copy()
        self.pool.share(slots)
        return Kv(self.pool, slots)

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._slots is not None:
            self.pool.release(self._slots)
            self._slots = None
