"""A request while the torch engine decodes it.

The event loop and the worker take turns: a step of the worker is never under way while the loop changes a request.
"""

import time
from asyncio import Future
from typing import Any

import numpy as np
import torch

from parallel_reason.engines.base import Decode, Decoded, OnTokens, StopReason
from parallel_reason.engines.torch_kv import NONE, Kv, Pool, Slots
from parallel_reason.errors import InputError
from parallel_reason.text import TextStream

SHORTEST_SHARED = 64  # held tokens from which on requests attend to what they have in common together


class Request:
    """What is known, computed and still to be computed of one request.

    Attributes:
        tokens, positions: of the context and all new tokens.
        shared: the slots it was given to begin with, as bytes; empty if they are few.
        reason: why it samples no more; None while it does.
        error: what broke it.
    """

    def __init__(self, decode: Decode, pool: Pool, future: "Future[Decoded]", on_tokens: OnTokens | None) -> None:
        """Hold what it was given; raises InputError if that does not fit together."""
        self.decode = decode
        self.future = future
        self.tokens = list(decode.ids)
        self.positions = list(range(len(self.tokens)) if decode.positions is None else decode.positions)
        self.reason: StopReason | None = None if decode.max_tokens else "length"
        self.error: Exception | None = None
        self.unwanted = False
        self.generator: torch.Generator | None = None
        held = _held(decode, pool)
        self.decoded = Decoded(cached_tokens=len(held))
        if len(held) == len(self.tokens) and decode.max_tokens:
            held = held[:-1]  # the last token is computed once more, for its logits
        pool.share(held)
        self._pool = pool
        self._slots = np.concatenate([held, np.empty(len(self.tokens) - len(held) + 64, dtype=np.int64)])
        self.computed = len(held)
        self.shared = held.tobytes() if len(held) >= SHORTEST_SHARED else b""
        self._on_tokens = on_tokens
        self._told = 0
        self._begun = time.perf_counter()
        self._text: TextStream | None = None
        self._tail = ""

    @property
    def slots(self) -> Slots:
        """Slots of the computed tokens, [computed]."""
        computed: Slots = self._slots[: self.computed]
        return computed

    @property
    def pending(self) -> int:
        """Tokens whose KV is still to be computed: none if nobody will look at it."""
        return 0 if self.reason and not self.decode.keep else len(self.tokens) - self.computed

    @property
    def samples(self) -> bool:
        """Whether it needs logits: all it has is computed, and it has not ended."""
        return self.reason is None and self.computed == len(self.tokens)

    def take(self, count: int) -> Slots:
        """Slots for its next ``count`` tokens; raises EngineError if there are none."""
        new = self._pool.take(count)
        while self.computed + count > len(self._slots):
            self._slots = np.concatenate([self._slots, np.empty_like(self._slots)])
        self._slots[self.computed : self.computed + count] = new
        self.computed += count
        return new

    def accept(self, token: int, logprob: float, eos_ids: frozenset[int], context: int, tokenizer: Any) -> None:
        """Add a sampled token, and see whether it is the last."""
        if not self.decoded.ids:
            self.decoded.first_token_s = time.perf_counter() - self._begun
        self.decoded.ids.append(token)
        self.decoded.logprobs.append(logprob)
        self.tokens.append(token)
        self.positions.append(self.positions[-1] + 1)
        if token in self.decode.stop_ids or token in eos_ids or self._completes(token, tokenizer):
            self.reason = "stop"
        elif len(self.decoded.ids) >= self.decode.max_tokens or len(self.tokens) >= context:
            self.reason = "length"

    def tell(self) -> None:
        """Report new tokens to who watches: the first, then each if the request is live, else the rest at the end."""
        new = self.decoded.ids[self._told :]
        if self._on_tokens and new and (self.decode.live or not self._told or self.reason):
            self._told = len(self.decoded.ids)
            self._on_tokens(new)

    def finish(self) -> None:
        """Hand out what was decoded, with the KV if it is wanted and whole; else the KV is released."""
        self.decoded.reason = self.reason or "abort"
        if self.decode.keep and self.decoded.reason != "abort":
            self.decoded.kv = Kv(self._pool, self.slots.copy())
        else:
            self.release()
        self.future.set_result(self.decoded)

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.release()
        self.future.set_exception(error)

    def release(self) -> None:
        """Give back all it holds."""
        self._pool.release(self.slots)

    def _completes(self, token: int, tokenizer: Any) -> bool:
        """Whether the text up to ``token`` ends, or has just passed, a stop text."""
        stops = self.decode.stop_texts
        if not stops:
            return False
        self._text = self._text or TextStream(tokenizer)
        self._tail += self._text.add([token])
        found = any(stop in self._tail for stop in stops)
        self._tail = self._tail[max(0, len(self._tail) - max(map(len, stops)) + 1) :]
        return found


def _held(decode: Decode, pool: Pool) -> Slots:
    """The slots that a request begins with."""
    handles = [kv for kv in decode.held if isinstance(kv, Kv) and kv.pool is pool]
    if len(handles) != len(decode.held):
        raise InputError(f"request {decode.id!r} holds KV of another engine; KV can be used by the engine it is from")
    held: Slots = np.concatenate([NONE, *(kv.slots for kv in handles)])
    if len(held) > len(decode.ids):
        raise InputError(f"request {decode.id!r} holds KV of {len(held)} tokens, but has {len(decode.ids)} ids")
    return held
