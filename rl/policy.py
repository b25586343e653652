"""Log-probs of sampled tokens under a policy: of the distribution that was sampled, and of the model itself.

Engines report log-probs of the model at temperature 1. A ratio of policies needs those of the distribution that was
sampled (temperature, top-k and top-p applied, in vLLM's order), under the new weights as under the old. Threads of one
trace may be sampled in several ways, a root hotter than its children say; each label has the number of its own.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper
from trl.trainer.utils import add_fused_lm_head

from parallel_reason import SamplingParams, Trace
from rl.rows import IGNORED

MODEL_INPUTS = ("input_ids", "position_ids", "attention_mask")


class Policy:
    """Scores rows of rollouts that were sampled with some parameters."""

    def __init__(self, sampling: SamplingParams) -> None:
        """``sampling`` is not greedy, and differs from thread to thread in temperature, top-k and top-p only."""
        self._sampling = sampling
        self._ways = list(dict.fromkeys(map(_way, sampling.every())))
        self._fused = len(self._ways) == 1 and self._ways[0][1:] == (0, 1.0)

    def attach(self, model: Any) -> None:
        """Give a model TRL's fused head, which has log-probs without the logits of all tokens."""
        add_fused_lm_head(model, temperature=self._ways[0][0], outputs=("log_probs", "entropy"))

    def ways(self, trace: Trace, threads: list[int]) -> list[int]:
        """The number of the way in which each label was sampled, given its thread, [tokens]; -1 for no thread."""
        of_thread = [self._ways.index(_way(self._sampling.of(thread.label))) for thread in trace.threads]
        return [of_thread[thread] if thread >= 0 else -1 for thread in threads]

    def logprobs(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log-probs of the labels under the distribution that is sampled, and its entropy, each [rows, tokens].

        Args:
            inputs: as `rl.rows.collate` makes them, and ``ways``, [rows, tokens], unless all threads are sampled in one
                way. Both results are 0 where there is no label.
        """
        labels = inputs["shift_labels"]
        if self._fused:
            rows = {name: inputs[name] for name in (*MODEL_INPUTS, "shift_labels")}
            outputs = model(**rows, fused_lm_head=True)
            return outputs.log_probs, outputs.entropy
        mask = labels != IGNORED
        logits, chosen = _logits(model, inputs)[mask], labels[mask]
        ways = inputs["ways"][mask] if "ways" in inputs else torch.zeros_like(chosen)
        scores = torch.empty_like(logits)
        for number, (temperature, top_k, top_p) in enumerate(self._ways):
            of_way = ways == number
            scores = scores.masked_scatter(
                of_way[:, None], sampled_distribution(logits[of_way], chosen[of_way], temperature, top_k, top_p)
            )
        entropy = -(scores.exp() * scores.masked_fill(scores.isneginf(), 0)).sum(-1)
        logprobs = scores.gather(-1, chosen[:, None])[:, 0]
        empty = torch.zeros_like(labels, dtype=scores.dtype)
        return empty.masked_scatter(mask, logprobs), empty.masked_scatter(mask, entropy)

    def mismatch(self, model: Any, inputs: dict[str, Tensor], sampler: Tensor, logprobs: Tensor) -> Tensor:
        """How far the engine's log-probs are from the model's own, in nats, for each label, [labels].

        Args:
            sampler: what the engine reported, [rows, tokens].
            logprobs: what `logprobs` gave; of use where it is of the model at temperature 1.
        """
        labels = inputs["shift_labels"]
        mask = labels != IGNORED
        if self._ways != [(1.0, 0, 1.0)]:
            with torch.no_grad():
                scores = _logits(model, inputs)[mask].log_softmax(-1)
            return (scores.gather(-1, labels[mask][:, None])[:, 0] - sampler[mask]).abs()
        return (logprobs.detach() - sampler)[mask].abs()


def sampled_distribution(logits: Tensor, labels: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """The log-probs of all tokens under the distribution that is sampled from logits, [tokens, vocabulary].

    A label that rounding puts outside the truncated set counts as inside it: it was sampled.

    Args:
        logits: [tokens, vocabulary].
        labels: the tokens that were sampled, [tokens].
    """
    scores = logits / temperature
    if not len(scores):
        return scores
    with torch.no_grad():
        kept = scores
        if top_k:
            kept = TopKLogitsWarper(top_k)(None, kept)
        if top_p < 1:
            kept = TopPLogitsWarper(top_p)(None, kept)
        outside = kept.isneginf().scatter(-1, labels[:, None], False)
    return scores.masked_fill(outside, -torch.inf).log_softmax(-1)


def _way(sampling: SamplingParams) -> tuple[float, int, float]:
    return sampling.temperature, sampling.top_k, sampling.top_p


def _logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """[rows, tokens, vocabulary], fp32."""
    logits: Tensor = model(**{name: inputs[name] for name in MODEL_INPUTS}).logits
    return logits.float()
