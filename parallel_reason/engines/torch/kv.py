"""Handles on KV that outlives its request, and the slots that a request gets from the handles it is given."""

import numpy as np

from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.torch.pool import NO_SLOTS, KVPool, Slots
from parallel_reason.errors import InputError


class TorchKVHandle:
    """KV of consecutive tokens; see `KVHandle` of the engine protocol."""

    def __init__(self, pool: KVPool, slots: Slots) -> None:
        """Take over one reference to each of ``slots``."""
        self.pool = pool
        self._slots: Slots | None = slots
        self._length = len(slots)

    @property
    def slots(self) -> Slots:
        """The slots of the tokens, in order, [tokens].

        Raises:
            InputError: the handle was released.
        """
        if self._slots is None:
            raise InputError("this KV was released; keep it until every request that needs it has started")
        return self._slots

    def __len__(self) -> int:
        """How many tokens."""
        return self._length

    def __getitem__(self, part: slice) -> "TorchKVHandle":
        """A handle on a part of the tokens, to be released on its own."""
        slots = self.slots[part].copy()
        self.pool.share(slots)
        return TorchKVHandle(self.pool, slots)

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._slots is not None:
            self.pool.release(self._slots)
            self._slots = None


def held_slots(request: EngineRequest, pool: KVPool) -> Slots:
    """The slots of ``request.held``, in order, [held tokens].

    Raises:
        InputError: KV that was released, is of another engine, or is of more tokens than the request has.
    """
    handles = [handle for handle in request.held if isinstance(handle, TorchKVHandle) and handle.pool is pool]
    if len(handles) != len(request.held):
        raise InputError(f"request {request.id!r} holds KV of another engine; use it with the engine that made it")
    slots: Slots = np.concatenate([NO_SLOTS, *(handle.slots for handle in handles)])
    if len(slots) > len(request.ids):
        raise InputError(f"request {request.id!r} holds KV of {len(slots)} tokens, but has {len(request.ids)} ids")
    return slots
