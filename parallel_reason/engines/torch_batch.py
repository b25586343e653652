"""Continuous batching: what runs in the next step, its packed row, and what is drawn after it.

A step takes the next tokens of every request: those that are one token behind first, then prompts in the order in which
they came, in parts, as many tokens as a step has room for.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from parallel_reason.engines.torch_attention import Family, Prefill, Step, places
from parallel_reason.engines.torch_kv import NONE, Pool, Slots
from parallel_reason.engines.torch_model import Model
from parallel_reason.engines.torch_request import Request
from parallel_reason.errors import EngineError, first_line

STEP_TOKENS = 2048  # most tokens of one step


class Batch:
    """Runs steps of a model; used from one thread."""

    def __init__(self, model: Model, pool: Pool, context: int) -> None:
        """Nothing has run yet."""
        self.model = model
        self.pool = pool
        self.context = context
        self.eos_ids = model.eos_ids()

    def step(self, requests: list[Request]) -> None:
        """Bring requests one step on; what breaks becomes the error of those it breaks."""
        running: list[tuple[Request, Slots]] = []
        for request, count in _plan(requests):
            try:
                running.append((request, request.take(count)))
            except Exception as error:  # the pool, or the memory for it, is full: the others go on
                request.error = _failure(error)
        if not running:
            return
        try:
            with torch.inference_mode():
                self._run(running)
        except Exception as error:  # whatever the model or its device raises, memory above all
            for request, _ in running:
                request.error = _failure(error)

    def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]``, [tokens - 1]."""
        scores: list[float] = []
        seen = NONE
        try:
            for start in range(0, len(ids) - 1, STEP_TOKENS):
                part = ids[start : min(start + STEP_TOKENS, len(ids) - 1)]
                new = self.pool.take(len(part))
                seen = np.concatenate([seen, new])
                alone = Prefill(slice(0, len(part)), places(seen, self.model.device))
                step = Step(self.pool, self._tensor(new), [], [alone])
                rows = list(range(len(part)))
                following = self._tensor(np.array(ids[start + 1 : start + 1 + len(part)]))
                with torch.inference_mode():
                    logits = self.model.forward(part, [start + row for row in rows], step, rows)
                    scores += logits.log_softmax(-1).gather(1, following[:, None])[:, 0].tolist()
        finally:
            self.pool.release(seen)
        return scores

    def _run(self, running: list[tuple[Request, Slots]]) -> None:
        groups: dict[tuple[bytes, int], list[tuple[Request, Slots]]] = defaultdict(list)
        for request, new in running:
            if len(new) == 1:
                groups[request.shared, 0].append((request, new))
        for key, members in list(groups.items()):
            if not key[0] or len(members) == 1:  # on their own: padded together where lengths are alike
                for request, new in groups.pop(key):
                    groups[b"", request.computed.bit_length()].append((request, new))
        longer = [(request, new) for request, new in running if len(new) > 1]
        families: list[Family] = []
        prefills: list[Prefill] = []
        order: list[tuple[Request, Slots]] = []
        for (shared, _), members in groups.items():
            rows = slice(len(order), len(order) + len(members))
            families.append(self._family(rows, shared, [request for request, _ in members]))
            order += members
        row = len(order)
        for request, new in longer:
            prefills.append(Prefill(slice(row, row + len(new)), places(request.slots, self.model.device)))
            row += len(new)
        order += longer

        ids: list[int] = []
        positions: list[int] = []
        drawing: list[tuple[Request, int]] = []
        for request, new in order:
            part = slice(request.computed - len(new), request.computed)
            ids += request.tokens[part]
            positions += request.positions[part]
            if request.samples:
                drawing.append((request, len(ids) - 1))
        step = Step(self.pool, self._tensor(np.concatenate([new for _, new in order])), families, prefills)
        logits = self.model.forward(ids, positions, step, [row for _, row in drawing])
        for (request, _), token, logprob in zip(drawing, *_draw(logits, [r for r, _ in drawing]), strict=True):
            request.accept(token, logprob, self.eos_ids, self.context, self.model.tokenizer)

    def _family(self, rows: slice, shared: bytes, members: list[Request]) -> Family:
        common: Slots = np.frombuffer(bytearray(shared), dtype=np.int64)
        own = [request.slots[len(common) :] for request in members]
        lengths = np.array([len(slots) for slots in own])
        table = np.empty((len(own), lengths.max()), dtype=np.int64)
        for line, slots in zip(table, own, strict=True):
            line[: len(slots)] = slots
            line[len(slots) :] = slots[0]
        padding = np.arange(table.shape[1]) >= lengths[:, None]
        return Family(
            rows=rows,
            shared=places(common, self.model.device) if shared else None,
            own=self._tensor(table.reshape(-1)),
            padding=self._tensor(padding[:, None]) if padding.any() else None,
        )

    def _tensor(self, array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Tensor:
        return torch.from_numpy(array).to(self.model.device)


def _failure(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    failure = EngineError(f"engine 'torch' failed in a step: {first_line(error)}")
    failure.__cause__ = error
    return failure


def _plan(requests: list[Request]) -> Iterable[tuple[Request, int]]:
    """Which requests run, and how many tokens of each."""
    room = STEP_TOKENS
    for request in sorted(requests, key=lambda request: request.pending > 1):
        count = min(request.pending, room)
        if count:
            yield request, count
        room -= count


def _draw(logits: Tensor, requests: list[Request]) -> tuple[list[int], list[float]]:
    """A token for each request by its own generator, and its log-prob at temperature 1; logits [requests, words]."""
    tokens = logits.argmax(-1)
    alike: dict[tuple[float, int, float], list[int]] = defaultdict(list)
    for row, request in enumerate(requests):
        sampling = request.decode.sampling
        if sampling.temperature > 0:
            alike[sampling.temperature, sampling.top_k, sampling.top_p].append(row)
    for (temperature, top_k, top_p), rows in alike.items():
        scores = TemperatureLogitsWarper(temperature)(None, logits[rows])
        if top_k:
            scores = TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1:
            scores = TopPLogitsWarper(top_p)(None, scores)
        noise = torch.empty_like(scores)  # the largest of p / Exp(1) is a draw from p
        for line, row in zip(noise, rows, strict=True):
            line.exponential_(generator=_generator(requests[row], logits.device))
        tokens[rows] = (scores.softmax(-1) / noise).argmax(-1)
    logprobs = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    return tokens.tolist(), logprobs.tolist()


def _generator(request: Request, device: torch.device) -> torch.Generator:
    if request.generator is None:
        request.generator = torch.Generator(device)
        if request.decode.seed is None:
            request.generator.seed()
        else:
            request.generator.manual_seed(request.decode.seed)
    return request.generator
