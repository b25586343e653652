"""The exactness contract: the log-prob an engine reported for each sampled token is the one of plain transformers.

The reference is one forward pass over ``layout(trace)``, with its positions and its mask, in eager attention. It uses
nothing of the engine, its KV cache or its batching.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parallel_reason.errors import InputError
from parallel_reason.trace import Trace, layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BOUND = 1e-4  # largest difference of log-probs that the contract allows, in nats, in fp32
LARGEST, MEAN = 4.0, 2.0  # in 16 bits: how much more than that of transformers itself a difference may be


@dataclass(frozen=True)
class Comparison:
    """The log-probs of a trace beside those of the reference, one entry a sampled token, in the order of the layout.

    Attributes:
        reported, expected: log-probs of the engine and of the reference, in nats, [sampled tokens].
        best: the most likely token id under the reference, [sampled tokens].
        ids: the token ids that were sampled, [sampled tokens].
        thread: index of its thread in ``trace.threads``, [sampled tokens].
        place: how many of its thread's sampled tokens came before, [sampled tokens].
    """

    reported: NDArray[np.float64]
    expected: NDArray[np.float64]
    best: NDArray[np.int64]
    ids: NDArray[np.int64]
    thread: NDArray[np.int64]
    place: NDArray[np.int64]

    @property
    def worst(self) -> int:
        """Index of the largest difference; where the engine reported NaN, that is the largest."""
        return int(np.argmax(np.nan_to_num(np.abs(self.reported - self.expected), nan=np.inf)))

    @property
    def largest(self) -> float:
        """The largest difference, in nats; 0 if nothing was sampled."""
        return float(abs(self.reported - self.expected)[self.worst]) if len(self.ids) else 0.0


@dataclass(frozen=True)
class Difference:
    """How far log-probs lie from those of a reference, over the tokens of several traces.

    Attributes:
        largest, mean: of the absolute differences, in nats; NaN if an engine reported one.
        tokens: how many.
    """

    largest: float
    mean: float
    tokens: int

    @classmethod
    def of(cls, logprobs: Sequence[NDArray[np.float64]], reference: Sequence[NDArray[np.float64]]) -> "Difference":
        """Log-probs and those of the reference, an array [sampled tokens] for each trace."""
        every = np.concatenate([np.zeros(0), *(np.abs(a - b) for a, b in zip(logprobs, reference, strict=True))])
        return cls(float(every.max()), float(every.mean()), len(every)) if len(every) else cls(0.0, 0.0, 0)

    def is_rounding(self, of_transformers: "Difference") -> bool:
        """Whether it is no more than what transformers, in the same 16 bits, differs from itself in float32.

        Rounding of another order differs in single tokens, so that the largest may be `LARGEST` times as large, but
        over all tokens the mean may be `MEAN` times.
        """
        return self.largest <= LARGEST * of_transformers.largest and self.mean <= MEAN * of_transformers.mean


def load_reference(model: str, dtype: str = "float32") -> "PreTrainedModel":
    """The model in plain transformers, on the CPU, with eager attention."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        net = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype), attn_implementation="eager")
    finally:
        if bars:
            logging.enable_progress_bar()
    return net.eval()


def compare(reference: Any, trace: Trace) -> Comparison:
    """Compare a trace to the reference. Memory is quadratic in the tokens of the trace.

    Raises:
        InputError: threads of the trace were decoded with an adapter.
    """
    import torch

    if trace.sampling and any(params.lora for params in trace.sampling.every()):
        raise InputError("this trace was decoded with LoRA; compare knows the model alone: merge the adapter into it")
    row = layout(trace)
    places = row.sampled.nonzero()[0]
    owner, _ = row.intervals()
    threads = np.array([segment.thread for segment in row.segments], dtype=np.int64)[owner][places]
    hidden = torch.finfo(reference.dtype).min
    with torch.inference_mode():
        logits = reference(
            input_ids=torch.from_numpy(row.ids)[None],
            position_ids=torch.from_numpy(row.positions)[None],
            attention_mask=torch.where(torch.from_numpy(row.mask()), 0.0, hidden)[None, None].to(reference.dtype),
        ).logits[0]
    logprobs = logits[torch.from_numpy(row.previous[places])].float().log_softmax(-1)
    chosen = torch.from_numpy(row.ids[places])
    return Comparison(
        reported=row.logprobs[places],
        expected=logprobs.gather(1, chosen[:, None])[:, 0].double().numpy(),
        best=logprobs.argmax(-1).numpy(),
        ids=row.ids[places],
        thread=threads,
        place=np.array([np.sum(threads[:k] == thread) for k, thread in enumerate(threads)], dtype=np.int64),
    )
