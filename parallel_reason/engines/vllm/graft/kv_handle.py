"""Handles on pinned KV, as callers of the engine have them."""

from parallel_reason.engines.base import KVHandle
from parallel_reason.engines.vllm.graft.kv_references import KVReferences
from parallel_reason.engines.vllm.graft.kv_sources import KVSource, SourceSlice, SourceSlices, concatenate
from parallel_reason.errors import InputError


class VllmKVHandle:
    """KV of consecutive tokens of one source; see `KVHandle`."""

    def __init__(self, references: KVReferences, source: KVSource, start: int, stop: int) -> None:
        """Refer to ``source``."""
        self.references = references
        self._slice: SourceSlice | None = SourceSlice(source, start, stop)
        self._length = stop - start
        references.hold(source)

    @property
    def source_slice(self) -> SourceSlice:
        """Where it is pinned.

        Raises:
            InputError: it was released.
        """
        if self._slice is None:
            raise InputError("this KV was released; hold it until every request that needs it has started")
        return self._slice

    def __len__(self) -> int:
        """How many tokens."""
        return self._length

    def __getitem__(self, part: slice) -> "VllmKVHandle":
        """A handle on a part of the tokens, to be released on its own."""
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise InputError(f"KV is cut into consecutive tokens, not by steps of {step}")
        source, first, _ = self.source_slice
        return VllmKVHandle(self.references, source, first + start, first + max(start, stop))

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._slice is not None:
            self.references.drop(self._slice.source)
            self._slice = None

    def __del__(self) -> None:
        """Give it back if it was not released."""
        if self._slice is not None:
            self.references.drop_threadsafe(self._slice.source)


def pinned_slices(references: KVReferences, request_id: str, held: tuple[KVHandle, ...], ids: int) -> SourceSlices:
    """Where the KV that a request of so many ids begins with is pinned.

    Raises:
        InputError: it was released, is another engine's, or has more tokens than the request.
    """
    handles = [kv for kv in held if isinstance(kv, VllmKVHandle) and kv.references is references]
    if len(handles) != len(held):
        raise InputError(f"request {request_id!r} holds KV of another engine; KV can be used by the engine it is from")
    slices = concatenate((kv.source_slice,) for kv in handles if len(kv))
    count = sum(map(len, handles))
    if count > ids:
        raise InputError(f"request {request_id!r} holds KV of {count} tokens, but has {ids} ids")
    return slices


def computed_slices(pinned: SourceSlices) -> SourceSlices:
    """Where tokens that are pinned in these slices were computed."""
    return concatenate(part.source.slices(part.start, part.stop) for part in pinned)
