"""Seeded sampling on vLLM's model runner V1: a logits processor that draws each token by the rule of all our engines.

vLLM's own generators, one a request, are not used: their noise depends on how a prompt was cut into steps, and on CPUs
taking back the draw of a step that computes only a part of a prompt ends the engine core.
"""

from typing import Any, NamedTuple

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from parallel_reason.engines.draws import Draw, draw_tokens
from parallel_reason.engines.vllm.messages import SeededDraw


class _Row(NamedTuple):
    """A seeded request in the batch.

    Attributes:
        sampled: vLLM's list of the request's new tokens so far; when steps are scheduled ahead, the newest may be a
            placeholder, so only its length is used.
    """

    message: SeededDraw
    sampled: list[int]

    def draw(self) -> Draw:
        message = self.message
        number = message.first_draw + len(self.sampled)
        return Draw(message.temperature, message.top_k, message.top_p, message.seed, number)


class SeededSampler(LogitsProcessor):  # type: ignore[misc]
    """Draws the token of each request that has a `SeededDraw`, and leaves vLLM's greedy sampling no other choice.

    Reported log-probs are not changed: vLLM takes ``raw_logprobs`` before any processor.
    """

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request whose message is not valid, before it reaches the engine core; raises ValueError."""
        SeededDraw.read(sampling_params.extra_args)

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        """An empty batch."""
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        """False: what is drawn is seldom the most likely token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests that enter, leave or move in the batch."""
        process_dict_updates(self._rows, batch_update, _row)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw, and set all other logits of these rows to -inf; logits [requests, vocabulary], fp32."""
        if self._rows:
            rows = list(self._rows)
            tokens = draw_tokens(logits[rows], [row.draw() for row in self._rows.values()])
            logits[rows] = -torch.inf
            logits[rows, tokens] = 0.0
        return logits


def _row(params: SamplingParams, prompt: list[int] | None, sampled: list[int]) -> _Row | None:
    message = SeededDraw.read(params.extra_args)
    return None if message is None else _Row(message, sampled)
