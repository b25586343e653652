"""The check of a prepared folder: it loads, its tags go in, and the torch engine agrees with transformers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parallel_reason.dialects import find
from parallel_reason.errors import ModelError
from parallel_reason.limits import Limits
from parallel_reason.llm import ParallelLLM
from parallel_reason.sampling import SamplingParams

SAMPLING = SamplingParams(temperature=1.0, seed=0, n=8)
LIMITS = Limits(tokens=64, tokens_per_thread=8, depth=1)


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check compared.

    Attributes:
        tokens: how many sampled tokens.
        largest: the largest difference of their log-probs from transformers', in nats.
    """

    tokens: int
    largest: float


def verify(folder: Path, dialect: str, dialect_options: dict[str, Any]) -> Checked:
    """Sample a little after a prompt with every tag in it, in float32, and hold its log-probs to transformers'.

    Raises:
        ModelError: the torch engine cannot run the model, or they differ by more than the contract allows.
    """
    from parallel_reason.exactness import BOUND, compare, load_reference

    prompt = "The capital of France is\n" + "\n".join(find(dialect).tags.values()) + "\nThe capital of France is"
    options: dict[str, Any] = {"dialect": dialect, "dialect_options": dialect_options, "engine": "torch"}
    try:
        with ParallelLLM(str(folder), dtype="float32", **options) as llm:
            traces = llm.generate(prompt, SAMPLING, LIMITS)
    except ModelError as error:
        raise ModelError(f"{error}; without the check it is prepared all the same") from error
    failed = next((trace for trace in traces if trace.status == "failed"), None)
    if failed:
        raise ModelError(f"the check failed: {failed.root.stop_reason}")
    reference = load_reference(str(folder))
    compared = [compare(reference, trace) for trace in traces]
    largest = float(np.max([one.largest for one in compared]))
    if not largest <= BOUND:  # NaN too
        raise ModelError(f"the check failed: a log-prob is {largest:.1e} nats off, more than {BOUND:g}")
    return Checked(sum(len(one.ids) for one in compared), largest)
