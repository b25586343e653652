"""Why a thread stopped sampling, and what the record says of it."""

from typing import Any

from parallel_reason.dialects.base import StoppedAt, Stops
from parallel_reason.text import decode


def stopped_at(token: int, stops: Stops, eos_ids: frozenset[int]) -> StoppedAt:
    """What a request stopped at whose last token this is; an end of text that only an engine knows counts too."""
    if token in stops.ids:
        return "stop"
    return "eos" if token in eos_ids or not stops.texts else "stop"


def stop_text(sampled: list[int], stops: Stops, tokenizer: Any) -> str:
    """The tag or token that ended a thread, in full where the tokenizer splits it."""
    token: str = tokenizer.convert_ids_to_tokens(sampled[-1]) if sampled else ""
    if not sampled or sampled[-1] in stops.ids or not stops.texts:
        return token
    tail = sampled[-4 * max(map(len, stops.texts)) :]
    before, text = len(decode(tokenizer, tail[:-1])), decode(tokenizer, tail)
    completed = [(end, stop) for stop in stops.texts if (end := text.rfind(stop) + len(stop)) > before and stop in text]
    return max(completed)[1] if completed else token
