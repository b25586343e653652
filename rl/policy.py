"""Log-probs of sampled tokens under a policy: of the distribution that was sampled, and of the model itself.

Engines report log-probs of the model at temperature 1. A ratio of policies needs those of the distribution that was
sampled (temperature, top-k and top-p applied, in vLLM's order), under the new weights as under the old.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper
from trl.trainer.utils import add_fused_lm_head

from parallel_reason import SamplingParams
from rl.rows import IGNORED

MODEL_INPUTS = ("input_ids", "position_ids", "attention_mask")


class Policy:
    """Scores rows of rollouts that were sampled with some parameters."""

    def __init__(self, sampling: SamplingParams) -> None:
        """``sampling`` is not greedy: a policy that is trained is sampled."""
        self._sampling = sampling
        self._truncates = sampling.top_p < 1 or sampling.top_k > 0

    def attach(self, model: Any) -> None:
        """Give a model TRL's fused head, which has log-probs without the logits of all tokens."""
        add_fused_lm_head(model, temperature=self._sampling.temperature, outputs=("log_probs", "entropy"))

    def logprobs(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log-probs of the labels under the distribution that is sampled, and its entropy, each [rows, tokens].

        Args:
            inputs: as `rl.rows.collate` makes them. Both are 0 where there is no label.
        """
        labels = inputs["shift_labels"]
        mask = labels != IGNORED
        if not self._truncates:
            rows = {name: inputs[name] for name in (*MODEL_INPUTS, "shift_labels")}
            outputs = model(**rows, fused_lm_head=True)
            return outputs.log_probs, outputs.entropy
        scores = sampled_distribution(_logits(model, inputs)[mask], labels[mask], self._sampling)
        entropy = -(scores.exp() * scores.masked_fill(scores.isneginf(), 0)).sum(-1)
        logprobs = scores.gather(-1, labels[mask][:, None])[:, 0]
        empty = torch.zeros_like(labels, dtype=scores.dtype)
        return empty.masked_scatter(mask, logprobs), empty.masked_scatter(mask, entropy)

    def mismatch(self, model: Any, inputs: dict[str, Tensor], sampler: Tensor, logprobs: Tensor) -> Tensor:
        """How far the engine's log-probs are from the model's own, in nats, for each label, [labels].

        Args:
            sampler: what the engine reported, [rows, tokens].
            logprobs: what `logprobs` gave; of use where it is of the model at temperature 1.
        """
        mask = inputs["shift_labels"] != IGNORED
        if self._truncates or self._sampling.temperature != 1:
            with torch.no_grad():
                scores = _logits(model, inputs)[mask].log_softmax(-1)
            return (scores.gather(-1, inputs["shift_labels"][mask][:, None])[:, 0] - sampler[mask]).abs()
        return (logprobs.detach() - sampler)[mask].abs()


def sampled_distribution(logits: Tensor, labels: Tensor, sampling: SamplingParams) -> Tensor:
    """The log-probs of all tokens under the distribution that ``sampling`` makes of logits, [tokens, vocabulary].

    A label that rounding puts outside the truncated set counts as inside it: it was sampled.

    Args:
        logits: [tokens, vocabulary].
        labels: the tokens that were sampled, [tokens].
    """
    scores = logits / sampling.temperature
    with torch.no_grad():
        kept = scores
        if sampling.top_k:
            kept = TopKLogitsWarper(sampling.top_k)(None, kept)
        if sampling.top_p < 1:
            kept = TopPLogitsWarper(sampling.top_p)(None, kept)
        outside = kept.isneginf().scatter(-1, labels[:, None], False)
    return scores.masked_fill(outside, -torch.inf).log_softmax(-1)


def _logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """[rows, tokens, vocabulary], fp32."""
    logits: Tensor = model(**{name: inputs[name] for name in MODEL_INPUTS}).logits
    return logits.float()
