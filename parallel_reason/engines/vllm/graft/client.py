"""Requests that begin with pinned KV, or whose KV is kept.

vLLM has no KV of a request's last sampled token unless a step ran ahead of it: the KV handed out may be one token
short.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from parallel_reason.engines.base import EngineRequest, RequestOutput
from parallel_reason.engines.vllm.graft.kv_handle import VllmKVHandle, computed_slices, pinned_slices
from parallel_reason.engines.vllm.graft.kv_references import KVReferences
from parallel_reason.engines.vllm.graft.kv_sources import KVSource, SourceSlices, cut, length
from parallel_reason.engines.vllm.graft.messages import GraftRequest
from parallel_reason.engines.vllm.graft.request import floor_of, graft_request
from parallel_reason.engines.vllm.live_request import LiveRequest
from parallel_reason.errors import EngineError, InputError

ATTEMPTS = 6  # the first, and others after pins were lost; from the third on, one request at a time

RunOnVllm = Callable[[LiveRequest, EngineRequest, GraftRequest], Awaitable[int | None]]


class GraftClient:
    """Decodes on one vLLM engine whose scheduler has a `GraftConnector`.

    Attributes:
        repeated: how often a request was sent again because a pin was lost.
    """

    def __init__(self, run: RunOnVllm, references: KVReferences, tokenizer: Any) -> None:
        """``run`` runs a part of a live request on vLLM, and returns how many of its tokens are pinned.

        None says that vLLM failed it, because a pin was lost.
        """
        self._run = run
        self.references = references
        self.repeated = 0
        self._tokenizer = tokenizer
        self._alone = asyncio.Lock()
        self._number = 0

    async def generate(self, live: LiveRequest) -> RequestOutput:
        """Decode; see `Engine`."""
        request, output = live.request, live.output
        positions = request.positions
        if positions is not None and len(positions) != len(request.ids):
            raise InputError(
                f"request {request.id!r} has {len(request.ids)} ids but {len(positions)} positions; give one for each"
            )
        pinned = pinned_slices(self.references, request.id, request.held, len(request.ids))
        if length(pinned) == len(request.ids):
            if request.max_tokens == 0 and len(pinned) == 1:
                kv = VllmKVHandle(self.references, *pinned[0]) if request.keep_kv else None
                count = len(request.ids)
                return RequestOutput(finish_reason="length", prefilled_tokens=count, cached_tokens=count, kv=kv)
            if floor_of(computed_slices(pinned)) == len(request.ids):
                raise InputError(f"request {request.id!r} holds KV of all its ids, put together; leave at least one id")
            pinned = cut(pinned, 0, len(request.ids) - 1)  # the last token is computed once more, for its logits
        self._number += 1
        source = KVSource(
            f"{self._number}/{request.id}",
            list(request.ids),
            list(range(len(request.ids)) if positions is None else positions),
            computed_slices(pinned),
        )
        kept = False
        for part in pinned:
            self.references.hold(part.source)
        try:
            tokens = await self._repeated(live, source, pinned)
            if request.keep_kv and tokens and output.finish_reason != "abort":
                kept = True
                source.ids, source.positions = source.ids[:tokens], source.positions[:tokens]
                output.kv = VllmKVHandle(self.references, source, 0, tokens)
        finally:
            for part in pinned:
                self.references.drop(part.source)
            if request.keep_kv and not kept:
                self.references.release_unless_held(source)
        return output

    async def _repeated(self, live: LiveRequest, source: KVSource, pinned: SourceSlices) -> int:
        """Run a request until it ends, however often its pins are lost; ``source`` grows by what it samples."""
        request, output = live.request, live.output
        pin_as = source.name if request.keep_kv else None
        for attempt in range(ATTEMPTS):
            epochs = [part.source.epoch for part in pinned]
            tokens = await self._run(
                live, _rest(live, source), graft_request(source.positions, source.before, pinned, pin_as)
            )
            new = output.ids[len(source.ids) - len(request.ids) :]
            source.positions += range(source.positions[-1] + 1, source.positions[-1] + 1 + len(new))
            source.ids += new
            if tokens is not None:
                return tokens
            if not pinned:
                raise EngineError(f"engine 'vllm' failed request {request.id!r} without a reason")
            if len(output.ids) >= request.max_tokens > 0:
                output.finish_reason = "length"
                return 0
            self.repeated += 1
            if attempt < 1:
                await self._compute_again(pinned, epochs)
            else:
                async with self._alone:
                    await self._compute_again(pinned, epochs)
        raise EngineError(
            f"engine 'vllm' is out of KV memory: what request {request.id!r} begins with does not fit beside it; run "
            "fewer threads at once, release held KV, or start it with more memory (kv_cache_gib on CPUs)"
        )

    async def _compute_again(self, pinned: SourceSlices, epochs: list[int]) -> None:
        """Pin anew what these slices lie in, unless that was done since their sources had these epochs."""
        for part, epoch in zip(pinned, epochs, strict=True):
            async with part.source.computing:
                if part.source.epoch == epoch:
                    await self._compute(part.source)
                    part.source.epoch += 1

    async def _compute(self, source: KVSource) -> None:
        """Compute a source as it was computed at first."""
        await self.references.flush()
        self._number += 1
        request = EngineRequest(f"{self._number}/{source.name}", source.ids, max_tokens=0, keep_kv=True)
        message = graft_request(source.positions, source.before, source.before, source.name)
        for part in source.before:
            self.references.hold(part.source)
        try:
            for _ in range(ATTEMPTS):
                epochs = [part.source.epoch for part in source.before]
                if await self._run(LiveRequest(request, self._tokenizer), request, message) is not None:
                    return
                await self._compute_again(source.before, epochs)
        finally:
            for part in source.before:
                self.references.drop(part.source)
        raise EngineError(f"engine 'vllm' is out of KV memory: {len(source.ids)} tokens do not fit beside what is held")


def _rest(live: LiveRequest, source: KVSource) -> EngineRequest:
    """What is still to be decoded of a request."""
    request, done = live.request, len(live.output.ids)
    if not done:
        return replace(request, ids=source.ids)
    return replace(
        request,
        ids=source.ids,
        max_tokens=request.max_tokens - done,
        first_draw=request.first_draw + done,
        sampled=request.sampled + live.output.ids,
        tail=request.tail + done,
    )
