"""The state of a request while the torch engine decodes it.

The event loop and the worker thread take turns: the loop changes a request only between two steps of the worker.
"""

import secrets
from asyncio import Future
from typing import Any

import numpy as np

from parallel_reason.engines.base import EngineRequest, FinishReason, OnTokens, RequestOutput, TokenDelta
from parallel_reason.engines.draws import Draw
from parallel_reason.engines.shaping import Shaping
from parallel_reason.engines.torch.kv import TorchKVHandle, held_slots
from parallel_reason.engines.torch.pool import KVPool, Slots

SHORTEST_SHARED = 64  # held tokens from which on requests with the same ones attend to them as one group


class RequestState:
    """One request: its tokens, which of them have KV, and its output so far.

    Attributes:
        tokens, positions: of the context and all new tokens, [tokens].
        computed: how many of ``tokens``, from the first on, have KV or get it in the step that runs.
        shared: the slots of ``held`` as bytes, a key for grouping; empty if they are few.
        output: what is returned at the end.
        finish_reason: why it samples no more; None while it does.
        aborted: whether it ends before the next step.
        error: the exception that it ends with.
    """

    def __init__(
        self,
        request: EngineRequest,
        future: "Future[RequestOutput]",
        on_tokens: OnTokens | None,
        *,
        pool: KVPool,
        tokenizer: Any,
        eos_ids: frozenset[int],
        context: int,
        policy_version: int,
        shaping: Shaping | None = None,
    ) -> None:
        """Take references to the slots of ``held``.

        Args:
            shaping: what changes its logits before they are drawn from, if anything does.

        Raises:
            InputError: see `held_slots`.
        """
        self.request = request
        self.future = future
        self.tokens = list(request.ids)
        self.positions = list(range(len(self.tokens)) if request.positions is None else request.positions)
        self.output = RequestOutput()
        self.finish_reason: FinishReason | None = None
        if not request.max_tokens or len(self.tokens) >= context:
            self.finish_reason = "length"
        self.aborted = False
        self.error: Exception | None = None
        held = held_slots(request, pool)
        self._held = len(held)
        if len(held) == len(self.tokens) and self.finish_reason is None:
            held = held[:-1]  # the last token is computed once more, for its logits
        pool.share(held)
        self._pool = pool
        self._slots = np.concatenate([held, np.empty(len(self.tokens) - len(held) + 64, dtype=np.int64)])
        self.computed = len(held)
        self.shared = held.tobytes() if len(held) >= SHORTEST_SHARED else b""
        self._eos_ids = frozenset() if request.sampling.ignore_eos else eos_ids
        self._context = context
        self._seed = secrets.randbits(63) if request.seed is None else request.seed
        self._stop_texts = request.stops_in(tokenizer)
        self._shaping = shaping
        self._policy_version = policy_version
        self._on_tokens = on_tokens
        self._reported = 0

    @property
    def slots(self) -> Slots:
        """Slots of the computed tokens, [computed]."""
        slots: Slots = self._slots[: self.computed]
        return slots

    @property
    def pending(self) -> int:
        """How many tokens still need KV; 0 if it has ended and its KV is not kept."""
        return 0 if self.finish_reason and not self.request.keep_kv else len(self.tokens) - self.computed

    @property
    def needs_logits(self) -> bool:
        """Whether a token is sampled after the step: all tokens are computed and it has not ended."""
        return self.finish_reason is None and self.computed == len(self.tokens)

    def take_slots(self, count: int) -> Slots:
        """Slots for the next ``count`` tokens, [count].

        Raises:
            EngineError: the pool is full.
        """
        new = self._pool.take(count)
        while self.computed + count > len(self._slots):
            self._slots = np.concatenate([self._slots, np.empty_like(self._slots)])
        self._slots[self.computed : self.computed + count] = new
        self.computed += count
        self._count_context()
        return new

    def next_draw(self) -> Draw:
        """How its next token is drawn."""
        sampling = self.request.sampling
        number = self.request.first_draw + len(self.output.ids)
        return Draw(
            sampling.temperature, sampling.top_k, sampling.top_p, self._seed, number, sampling.min_p, self._shaping
        )

    def accept(self, token: int, logprob: float, top_logprobs: dict[int, float]) -> None:
        """Add a sampled token, and end if it is a stop or the last that there is room for.

        Args:
            top_logprobs: of the most likely tokens in its place; empty if the request did not ask for them.
        """
        top = [top_logprobs] if top_logprobs else []
        self.output.add(TokenDelta([token], [logprob], top, self._policy_version))
        self.tokens.append(token)
        self.positions.append(self.positions[-1] + 1)
        if self._shaping is not None:
            self._shaping.add(token)
        text_ends = self._stop_texts is not None and self._stop_texts.completed_by(token)
        if text_ends or token in self.request.stop_ids or token in self._eos_ids:
            self.finish_reason = "stop"
        elif len(self.output.ids) >= self.request.max_tokens or len(self.tokens) >= self._context:
            self.finish_reason = "length"

    def report(self) -> None:
        """Call ``on_tokens`` with new tokens: each if the request streams, else the first, and the rest at the end."""
        new = slice(self._reported, len(self.output.ids))
        due = self.request.stream or not self._reported or self.finish_reason
        if self._on_tokens and due and new.start < new.stop:
            self._reported = new.stop
            output = self.output
            self._on_tokens(
                TokenDelta(output.ids[new], output.logprobs[new], output.top_logprobs[new], self._policy_version)
            )

    def finish(self) -> None:
        """Return the output, with a handle on the KV if the request keeps it and was not aborted."""
        self.output.finish_reason = self.finish_reason or "abort"
        if self.request.keep_kv and self.output.finish_reason != "abort":
            self._count_context()
            self.output.kv = TorchKVHandle(self._pool, self.slots.copy())
        else:
            self.release()
        self.future.set_result(self.output)

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.release()
        self.future.set_exception(error)

    def release(self) -> None:
        """Drop the references to all its slots."""
        self._pool.release(self.slots)

    def _count_context(self) -> None:
        self.output.prefilled_tokens = len(self.request.ids)
        self.output.cached_tokens = self._held
