"""Sampling on vLLM's model runner V1: a logits processor that draws tokens by the rule of all our engines.

vLLM's own generators, one a request, are not used: their noise depends on how a prompt was cut into steps, and on CPUs
taking back the draw of a step that computes only a part of a prompt ends the engine core. Nor are its own penalties and
grammars: they count over one request, and a thread takes many; and log-probs under its grammars are not the model's.
"""

from dataclasses import dataclass
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from parallel_reason.engines.draws import Draw, draw_tokens
from parallel_reason.engines.grammars import Grammars, parse
from parallel_reason.engines.models import load_tokenizer
from parallel_reason.engines.seeded_draw import SeededDraw
from parallel_reason.engines.shaping import Shaping
from parallel_reason.errors import InputError


@dataclass(slots=True)
class _Row:
    """A request in the batch.

    Attributes:
        sampled: vLLM's list of the request's new tokens so far; when steps are scheduled ahead, the newest may be a
            placeholder, so only its length is used.
    """

    message: SeededDraw
    sampled: list[int]
    shaping: Shaping | None

    def draw(self) -> Draw:
        message, sampling = self.message, self.message.sampling
        if self.shaping is not None:
            self.shaping.keep(len(self.sampled))  # what was drawn in a step that computed a part of a prompt is dropped
        number = message.first_draw + len(self.sampled)
        truncation = sampling.temperature, sampling.top_k, sampling.top_p
        return Draw(*truncation, message.seed, number, sampling.min_p, self.shaping)


class SeededSampler(LogitsProcessor):  # type: ignore[misc]
    """Draws the token of each request that has a `SeededDraw`, and leaves vLLM's greedy sampling no other choice.

    Reported log-probs are not changed: vLLM takes ``raw_logprobs`` before any processor.
    """

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request whose message is not valid, before it reaches the engine core; raises ValueError."""
        message = SeededDraw.read(sampling_params.extra_args)
        if message and message.sampling.structured_outputs:
            try:
                parse(message.sampling.structured_outputs)
            except InputError as error:
                raise ValueError(str(error)) from None

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        """An empty batch."""
        self._rows: dict[int, _Row] = {}
        self._model = vllm_config.model_config
        self._grammars: Grammars | None = None

    def is_argmax_invariant(self) -> bool:
        """False: what is drawn is seldom the most likely token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests that enter, leave or move in the batch."""
        process_dict_updates(self._rows, batch_update, self._row)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw, and set all other logits of these rows to -inf; logits [requests, vocabulary], fp32."""
        if self._rows:
            rows = list(self._rows)
            tokens = draw_tokens(logits[rows], [row.draw() for row in self._rows.values()])
            logits[rows] = -torch.inf
            logits[rows, tokens] = 0.0
            for place, row in enumerate(self._rows.values()):
                if row.shaping is not None:
                    row.shaping.add(int(tokens[place]))
        return logits

    def _row(self, params: SamplingParams, prompt: list[int] | None, sampled: list[int]) -> _Row | None:
        message = SeededDraw.read(params.extra_args)
        if message is None:
            return None
        if not message.sampling.changes_logits:
            return _Row(message, sampled, None)
        if message.sampling.structured_outputs and self._grammars is None:
            tokenizer = load_tokenizer(self._model.tokenizer, "structured outputs need one")
            self._grammars = Grammars(tokenizer, self._model.get_vocab_size())
        more = params.all_stop_token_ids - message.tags - message.ends  # a server knows ends that its client does not
        message = message.model_copy(update={"ends": message.ends | more, "tags": message.tags | more})
        return _Row(message, sampled, Shaping(message, prompt or [], sampled, self._grammars))
