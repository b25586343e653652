"""How a token is drawn from logits: one rule for every engine of ours.

The noise of a token is a function of its thread's seed and of its number in the thread, and of nothing else: not of the
batch, of how a prompt was cut into steps, or of where a request ended and the next began.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper


@dataclass(frozen=True, slots=True)
class Draw:
    """One token to be drawn.

    Attributes:
        temperature, top_k, top_p: as in `SamplingParams`; a temperature of 0 takes the most likely token.
        seed: of the thread.
        number: how many tokens the thread sampled before.
    """

    temperature: float
    top_k: int
    top_p: float
    seed: int
    number: int


def draw_tokens(logits: Tensor, draws: list[Draw]) -> Tensor:
    """One token for each row.

    Args:
        logits: [rows, vocabulary], fp32.
        draws: [rows].

    Returns:
        Token ids, [rows].
    """
    tokens = logits.argmax(-1)
    rows_of: dict[tuple[float, int, float], list[int]] = {}
    for row, draw in enumerate(draws):
        if draw.temperature > 0:
            rows_of.setdefault((draw.temperature, draw.top_k, draw.top_p), []).append(row)
    for (temperature, top_k, top_p), rows in rows_of.items():
        scores = logits[rows]
        # At most 0, so that no temperature overflows it; the smallest that is not 0 in fp32 is as good as greedy.
        scores = (scores - scores.amax(-1, keepdim=True)) / max(temperature, torch.finfo(torch.float32).tiny)
        if top_k:
            scores = TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1:
            scores = TopPLogitsWarper(top_p)(None, scores)
        noise = torch.empty_like(scores)  # the largest of p / Exp(1) is a draw from p
        for line, row in zip(noise, rows, strict=True):
            line.exponential_(generator=_generator(draws[row], logits.device))
        tokens[rows] = (scores.softmax(-1) / noise).argmax(-1)
    return tokens


def _generator(draw: Draw, device: torch.device) -> torch.Generator:
    mixed = hashlib.blake2b(f"{draw.seed}/{draw.number}".encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(mixed))
