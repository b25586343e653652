"""What other frameworks call our settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams

OF_TASKS = {
    "until", "max_gen_toks", "max_new_tokens", "max_length", "do_sample", "temperature", "top_p", "top_k", "min_p",
    "repetition_penalty", "seed",
}  # fmt: skip


def limits_and_options(
    options: Mapping[str, Any], *, without: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of a model, apart: fields of `Limits`, and the engine's own; without those named."""
    kept = {name: value for name, value in options.items() if name not in without}
    limits = {name: value for name, value in kept.items() if name in Limits.model_fields and name != "context"}
    return limits, {name: value for name, value in kept.items() if name not in limits}


def sampling_of_task(given: Mapping[str, Any]) -> tuple[SamplingParams, tuple[str, ...]]:
    """Sampling parameters of a task's ``generation_kwargs``, and the texts at which an answer is cut.

    The stops end the root; children go on past them, as what they write is no answer.

    Raises:
        InputError: a setting that has no meaning here.
    """
    unknown = next((name for name in given if name not in OF_TASKS), None)
    if unknown is not None:
        raise InputError(
            f"generation_kwargs has {unknown}={given[unknown]!r:.60}; known are {', '.join(sorted(OF_TASKS))}"
        )
    until = given.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    fields = {name: given[name] for name in ("top_p", "top_k", "min_p", "repetition_penalty", "seed") if name in given}
    sampled = given.get("do_sample", float(given.get("temperature") or 0) > 0)
    fields["temperature"] = float(given.get("temperature", 1.0)) if sampled else 0.0
    fields["max_tokens"] = given.get("max_gen_toks", given.get("max_new_tokens"))
    seed = fields.pop("seed", None)
    below = SamplingParams(**fields)
    return SamplingParams(**fields, seed=seed, stop=stops, below=below if stops else None), stops
