"""Continuous batching: schedules the requests of the next step, runs the model, and samples.

A step computes the next tokens of every request: first of those that are one token behind, then prompts in the order in
which they came, in chunks, up to `MAX_BATCHED_TOKENS`.
"""

import numpy as np
import torch
from torch import Tensor

from parallel_reason.engines.draws import draw_tokens
from parallel_reason.engines.torch.attention import Prefill, StepAttention, slot_index
from parallel_reason.engines.torch.batch import Scheduled, pack, to_device
from parallel_reason.engines.torch.model import Model
from parallel_reason.engines.torch.pool import NO_SLOTS, KVPool
from parallel_reason.engines.torch.request import RequestState
from parallel_reason.errors import EngineError, first_line

MAX_BATCHED_TOKENS = 2048  # of one step


class ModelRunner:
    """Runs steps of a model; used from one thread."""

    def __init__(self, model: Model, pool: KVPool) -> None:
        """Nothing has run yet."""
        self.model = model
        self.pool = pool

    def step(self, states: list[RequestState]) -> None:
        """Run one step; an exception becomes the ``error`` of the requests it concerns."""
        scheduled: list[Scheduled] = []
        for state, count in _schedule(states):
            try:
                scheduled.append(Scheduled(state, state.take_slots(count)))
            except Exception as error:  # the pool, or the memory to grow it, is full: the others go on
                state.error = _failure(error)
        if not scheduled:
            return
        try:
            with torch.inference_mode():
                self._run(scheduled)
        except Exception as error:  # from the model or its device, most often out of memory
            for one in scheduled:
                one.state.error = _failure(error)

    def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]``, [tokens - 1]."""
        device = self.model.device
        scores: list[float] = []
        slots = NO_SLOTS
        try:
            for start in range(0, len(ids) - 1, MAX_BATCHED_TOKENS):
                chunk = ids[start : min(start + MAX_BATCHED_TOKENS, len(ids) - 1)]
                new = self.pool.take(len(chunk))
                slots = np.concatenate([slots, new])
                prefill = Prefill(slice(0, len(chunk)), slot_index(slots, device))
                attention = StepAttention(self.pool, to_device(new, device), [], [prefill])
                rows = list(range(len(chunk)))
                targets = torch.tensor(ids[start + 1 : start + 1 + len(chunk)], device=device)
                with torch.inference_mode():
                    logits = self.model.forward(chunk, [start + row for row in rows], attention, rows)
                    scores += logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].tolist()
        finally:
            self.pool.release(slots)
        return scores

    def _run(self, scheduled: list[Scheduled]) -> None:
        batch = pack(scheduled, self.pool, self.model.device)
        logits = self.model.forward(batch.ids, batch.positions, batch.attention, batch.logits_rows)
        tokens = draw_tokens(logits, [state.next_draw() for state in batch.sampling])
        logprobs = logits.log_softmax(-1)  # of the model at temperature 1
        chosen = logprobs.gather(1, tokens[:, None])[:, 0].tolist()
        top = _top_logprobs(logprobs, [state.request.sampling.logprobs for state in batch.sampling])
        for state, token, logprob, most_likely in zip(batch.sampling, tokens.tolist(), chosen, top, strict=True):
            try:
                state.accept(token, logprob, most_likely)
            except Exception as error:  # from the tokenizer
                state.error = _failure(error)


def _schedule(states: list[RequestState]) -> list[tuple[RequestState, int]]:
    """Which requests run, and how many tokens of each."""
    scheduled = []
    room = MAX_BATCHED_TOKENS
    for state in sorted(states, key=lambda state: state.pending > 1):
        if count := min(state.pending, room):
            scheduled.append((state, count))
            room -= count
    return scheduled


def _top_logprobs(logprobs: Tensor, counts: list[int]) -> list[dict[int, float]]:
    """The ``counts`` most likely tokens of each row of ``logprobs``, [rows, vocabulary]; an empty dict for 0."""
    widest = min(max(counts, default=0), logprobs.shape[1])
    values, ids = (part.tolist() for part in logprobs.topk(widest))
    return [
        dict(zip(row_ids[:count], row_values[:count], strict=True))
        for row_ids, row_values, count in zip(ids, values, counts, strict=True)
    ]


def _failure(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    failure = EngineError(f"engine 'torch' failed in a step: {first_line(error)}")
    failure.__cause__ = error
    return failure
