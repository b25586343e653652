"""Requests that begin with pinned KV, and keep theirs.

vLLM has no KV of a request's last sampled token unless a step ran ahead of it: the KV handed out may be one token
short.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from parallel_reason.engines.base import Decode, Decoded, OnTokens
from parallel_reason.engines.vllm_graft.facts import Facts, Runs, Source, cut, facts, floor_of, length
from parallel_reason.engines.vllm_graft.pins import Kv, Pins, computed, held_by
from parallel_reason.errors import EngineError, InputError
from parallel_reason.sampling import SamplingParams

ATTEMPTS = 6  # the first, and others after pins were lost; from the third on, one request at a time

Ask = Callable[[Decode, Facts, Decoded, OnTokens | None], Awaitable[int | None]]


class Joins:
    """Decodes on one vLLM engine.

    Attributes:
        repeated: how often a request was sent again because a pin was lost.
    """

    def __init__(self, ask: Ask, pins: Pins) -> None:
        """``ask`` runs a request on vLLM, adds to what came of it, and returns how many tokens are pinned.

        None says that vLLM refused: a pin was lost.
        """
        self._ask = ask
        self.pins = pins
        self.repeated = 0
        self._alone = asyncio.Lock()
        self._number = 0

    async def generate(self, request: Decode, on_tokens: OnTokens | None) -> Decoded:
        """Decode; see `Engine`."""
        positions = request.positions
        if positions is not None and len(positions) != len(request.ids):
            raise InputError(
                f"request {request.id!r} has {len(request.ids)} ids but {len(positions)} positions; give one for each"
            )
        pinned = held_by(self.pins, request.id, request.held, len(request.ids))
        if length(pinned) == len(request.ids):
            if request.max_tokens == 0 and len(pinned) == 1:
                kv = Kv(self.pins, *pinned[0]) if request.keep else None
                return Decoded(reason="length", cached_tokens=len(request.ids), kv=kv)
            if floor_of(computed(pinned)) == len(request.ids):
                raise InputError(f"request {request.id!r} holds KV of all its ids, put together; leave at least one id")
            pinned = cut(pinned, 0, len(request.ids) - 1)  # the last token is computed once more, for its logits
        self._number += 1
        source = Source(
            f"{self._number}/{request.id}",
            list(request.ids),
            list(range(len(request.ids)) if positions is None else positions),
            computed(pinned),
        )
        kept = False
        decoded = Decoded()
        for run in pinned:
            self.pins.hold(run.source)
        try:
            tokens = await self._repeated(request, source, pinned, decoded, on_tokens)
            if request.keep and tokens and decoded.reason != "abort":
                kept = True
                source.ids, source.positions = source.ids[:tokens], source.positions[:tokens]
                decoded.kv = Kv(self.pins, source, 0, tokens)
        finally:
            for run in pinned:
                self.pins.drop(run.source)
            if request.keep and not kept:
                self.pins.forget(source)
        return decoded

    async def _repeated(
        self, request: Decode, source: Source, pinned: Runs, decoded: Decoded, on_tokens: OnTokens | None
    ) -> int:
        """Run a request until it ends, however often its pins are lost; ``source`` grows by what it samples."""
        pin = source.name if request.keep else None
        for attempt in range(ATTEMPTS):
            epochs = [run.source.epoch for run in pinned]
            tokens = await self._ask(
                self._rest(request, source, decoded),
                facts(source.positions, source.before, pinned, pin),
                decoded,
                on_tokens,
            )
            new = decoded.ids[len(source.ids) - len(request.ids) :]
            source.positions += range(source.positions[-1] + 1, source.positions[-1] + 1 + len(new))
            source.ids += new
            if tokens is not None:
                return tokens
            if not pinned:
                raise EngineError(f"engine 'vllm' failed request {request.id!r} without a reason")
            if len(decoded.ids) >= request.max_tokens > 0:
                decoded.reason = "length"
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

    def _rest(self, request: Decode, source: Source, decoded: Decoded) -> Decode:
        """What is still to be decoded of a request."""
        done = len(decoded.ids)
        if not done:
            return replace(request, ids=source.ids)
        seed = None if request.seed is None else request.seed + done
        return replace(request, ids=source.ids, max_tokens=request.max_tokens - done, seed=seed)

    async def _compute_again(self, pinned: Runs, epochs: list[int]) -> None:
        """Pin anew what these runs lie in, unless somebody has done so since they had these epochs."""
        for run, epoch in zip(pinned, epochs, strict=True):
            async with run.source.computing:
                if run.source.epoch == epoch:
                    await self._compute(run.source)
                    run.source.epoch += 1

    async def _compute(self, source: Source) -> None:
        """Compute a source as it was computed at first."""
        await self.pins.settle()
        self._number += 1
        request = Decode(
            id=f"{self._number}/{source.name}",
            ids=source.ids,
            max_tokens=0,
            stop_ids=frozenset(),
            sampling=SamplingParams(),
            keep=True,
        )
        told = facts(source.positions, source.before, source.before, source.name)
        for run in source.before:
            self.pins.hold(run.source)
        try:
            for _ in range(ATTEMPTS):
                epochs = [run.source.epoch for run in source.before]
                if await self._ask(request, told, Decoded(), None) is not None:
                    return
                await self._compute_again(source.before, epochs)
        finally:
            for run in source.before:
                self.pins.drop(run.source)
        raise EngineError(f"engine 'vllm' is out of KV memory: {len(source.ids)} tokens do not fit beside what is held")
