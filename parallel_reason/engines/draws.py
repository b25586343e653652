"""How a token is drawn from logits: one rule for every engine of ours.

The noise of a token is a function of its thread's seed and of its number in the thread, and of nothing else: not of the
batch, of how a prompt was cut into steps, or of where a request ended and the next began.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from parallel_reason.engines.shaping import Shaping


@dataclass(frozen=True, slots=True)
class Draw:
    """One token to be drawn.

    Attributes:
        temperature, top_k, top_p, min_p: as in `SamplingParams`; a temperature of 0 takes the most likely token.
        seed: of the thread.
        number: how many tokens the thread sampled before.
        shaping: what changes the logits first, if anything does.
    """

    temperature: float
    top_k: int
    top_p: float
    seed: int
    number: int
    min_p: float = 0.0
    shaping: Shaping | None = None


def draw_tokens(logits: Tensor, draws: list[Draw]) -> Tensor:
    """One token for each row. Shaping, temperature, ``min_p``, ``top_k``, ``top_p``: the order is vLLM's.

    Args:
        logits: [rows, vocabulary], fp32.
        draws: [rows].

    Returns:
        Token ids, [rows].
    """
    if any(draw.shaping for draw in draws):
        rows = zip(logits, draws, strict=True)
        logits = torch.stack([row if draw.shaping is None else draw.shaping(row) for row, draw in rows])
    tokens = logits.argmax(-1)
    rows_of: dict[tuple[float, float, int, float], list[int]] = {}
    for number, draw in enumerate(draws):
        if draw.temperature > 0:
            rows_of.setdefault((draw.temperature, draw.min_p, draw.top_k, draw.top_p), []).append(number)
    for (temperature, min_p, top_k, top_p), members in rows_of.items():
        scores = logits[members]
        # At most 0, so that no temperature overflows it; the smallest that is not 0 in fp32 is as good as greedy.
        scores = (scores - scores.amax(-1, keepdim=True)) / max(temperature, torch.finfo(torch.float32).tiny)
        if min_p:
            scores = MinPLogitsWarper(min_p)(None, scores)
        if top_k:
            scores = TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1:
            scores = TopPLogitsWarper(top_p)(None, scores)
        noise = torch.empty_like(scores)  # the largest of p / Exp(1) is a draw from p
        for line, row in zip(noise, members, strict=True):
            line.exponential_(generator=_generator(draws[row], logits.device))
        tokens[members] = (scores.softmax(-1) / noise).argmax(-1)
    return tokens


def _generator(draw: Draw, device: torch.device) -> torch.Generator:
    mixed = hashlib.blake2b(f"{draw.seed}/{draw.number}".encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(mixed))
