"""How the tokens of one request are drawn, as a message: torch reads it in place, vLLM's processes as JSON.

All that a rule over a whole thread needs is in it, as a thread may take many requests.
"""

import secrets
from functools import lru_cache
from typing import Any, Self

from pydantic import ConfigDict, Field

from parallel_reason.engines.base import EngineRequest
from parallel_reason.record import FrozenRecord
from parallel_reason.sampling import SamplingParams

KEY = "seeded_draw"  # under which it travels in parameters of a vLLM request
# What vLLM's own sampler counts over one request: only right over a thread where our sampler runs.
OVER_A_THREAD = ("presence_penalty", "frequency_penalty", "bad_words", "min_tokens", "structured_outputs")


class SeededDraw(FrozenRecord):
    """How the tokens of one request are drawn.

    Attributes:
        seed: of the thread.
        first_draw: number of the request's first token in its thread.
        sampling: of the thread.
        sampled, tail: see `EngineRequest`.
        bad_words: token ids of each of ``sampling.bad_words``, in every way in which they may come.
        ends: token ids that ``min_tokens`` holds off: ends of text, and ``sampling.stop_token_ids``.
        tags: ends of text, and stops of the dialect: under a grammar they come where it may end.
    """

    model_config = ConfigDict(strict=True)

    seed: int
    first_draw: int = Field(0, ge=0)
    sampling: SamplingParams = SamplingParams()
    sampled: tuple[int, ...] = ()
    tail: int = Field(0, ge=0)
    bad_words: tuple[tuple[int, ...], ...] = ()
    ends: frozenset[int] = frozenset()
    tags: frozenset[int] = frozenset()

    @classmethod
    def of(cls, request: EngineRequest, tokenizer: Any, eos_ids: frozenset[int]) -> Self | None:
        """That of a request; None if an engine's own sampler does: greedy, or without a seed, and no rule on logits."""
        sampling = request.sampling
        if not sampling.changes_logits and (request.seed is None or sampling.temperature == 0):
            return None
        seed = secrets.randbits(63) if request.seed is None else request.seed
        if not sampling.changes_logits:
            return cls(seed=seed, first_draw=request.first_draw, sampling=sampling)
        stops = frozenset(sampling.stop_token_ids) - eos_ids
        return cls(
            seed=seed,
            first_draw=request.first_draw,
            sampling=sampling,
            sampled=tuple(request.sampled),
            tail=request.tail,
            bad_words=word_ids(tokenizer, sampling.bad_words),
            ends=eos_ids | stops,
            tags=(eos_ids | request.stop_ids) - stops,
        )

    def json_text(self) -> str:
        """It as JSON, without what is of other threads."""
        return self.model_dump_json(exclude_defaults=True, exclude={"sampling": {"below", "threads"}})

    @classmethod
    def read(cls, parameters: dict[str, Any] | None) -> Self | None:
        """That in parameters of a vLLM request, or None if they have none.

        Raises:
            pydantic.ValidationError: it is there and not valid.
        """
        text = (parameters or {}).get(KEY)
        return None if text is None else cls.model_validate_json(text if isinstance(text, str) else "")


@lru_cache(maxsize=64)
def word_ids(tokenizer: Any, words: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Token ids of words at the start of a text and after a blank, by vLLM's rule: [words and variants][tokens]."""
    found: list[tuple[int, ...]] = []
    for word in words:
        plain, after_blank = (
            tuple(tokenizer.encode(blank + word.lstrip(), add_special_tokens=False)) for blank in ("", " ")
        )
        found += [plain] if plain else []
        if plain and after_blank[:1] != plain[:1] and len(after_blank) == len(plain):
            found.append(after_blank)
    return tuple(found)
