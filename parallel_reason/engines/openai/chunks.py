"""Answers of ``/v1/completions``, validated: the chunks of a stream, and the messages of errors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pydantic import BaseModel, ValidationError

_TOKEN = "token_id:"


@dataclass(frozen=True, slots=True)
class Chunk:
    """What came at once.

    Attributes:
        ids: new token ids, [tokens].
        logprobs: of each, [tokens]; of a request that scores its prompt, of all prompt tokens but the first.
        top_logprobs: token id to log-prob of the most likely tokens, if asked for, [tokens] or empty.
        finish: why the request ended, if it did.
        cached_tokens: prompt tokens from the server's prefix cache; comes last, and None from servers that do not
            report it.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    cached_tokens: int | None = None


def parse_chunk(data: bytes, body: Mapping[str, Any]) -> Chunk:
    """A chunk of the answer to ``body``.

    Raises:
        ValueError: it cannot be used; the message goes on from the name of the server.
    """
    try:
        answer = _Answer.model_validate_json(data)
    except ValidationError:
        failed = "error" in as_object(data)
        raise ValueError(f"failed: {message(data)}" if failed else "streams something else than completions") from None
    details = answer.usage.prompt_tokens_details if answer.usage else None
    cached = details.cached_tokens if details else None
    if not answer.choices:
        return Chunk(cached_tokens=cached)
    choice = answer.choices[0]
    if choice.token_ids is None:
        raise ValueError("returns no token ids for return_token_ids=true")
    if choice.finish_reason not in (None, "stop", "length"):
        raise ValueError(f"ended a request: {choice.finish_reason}")
    tokens = body["prompt"] if body["echo"] else choice.token_ids
    return Chunk(
        ids=choice.token_ids,
        logprobs=_logprobs(choice.logprobs, tokens, body),
        top_logprobs=_top_logprobs(choice.logprobs, tokens, body["logprobs"]),
        finish=cast(Literal["stop", "length"] | None, choice.finish_reason),
        cached_tokens=cached,
    )


def _logprobs(given: "_LogProbs | None", tokens: list[int], body: Mapping[str, Any]) -> list[float]:
    """One log-prob for each token; the first of a scored prompt has none and is left out."""
    if given is None:
        raise ValueError(f"returns no log-probs for logprobs={body['logprobs']}")
    values = given.token_logprobs
    if len(values) != len(tokens):
        raise ValueError(f"returns {len(values)} log-probs for {len(tokens)} tokens")
    skipped = 1 if body["echo"] else 0
    logprobs = []
    for token, value in zip(tokens[skipped:], values[skipped:], strict=True):
        if value is None:
            raise ValueError(f"returns null as the log-prob of token {token}")
        logprobs.append(value)
    return logprobs


def _top_logprobs(given: "_LogProbs | None", tokens: list[int], most: int) -> list[dict[int, float]]:
    """The ``most`` most likely tokens for each token; a server adds the sampled one if it is not among them."""
    if given is None or not most:
        return []
    if len(given.top_logprobs) != len(tokens):
        raise ValueError(f"returns {len(given.top_logprobs)} top_logprobs for {len(tokens)} tokens")
    tops = []
    for token, top in zip(tokens, given.top_logprobs, strict=True):
        if not top or not all(key.startswith(_TOKEN) and key[len(_TOKEN) :].isdecimal() for key in top):
            raise ValueError(f"returns no token ids in the top_logprobs of token {token}")
        ranked = sorted(top.items(), key=lambda entry: -entry[1])[:most]
        tops.append({int(key[len(_TOKEN) :]): value for key, value in ranked})
    return tops


def as_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def message(answer: bytes) -> str:
    """The message of an error, in one line."""
    parsed = as_object(answer)
    error = parsed.get("error", parsed)
    text = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return " ".join(str(text or answer.decode(errors="replace") or "no reason given").split())[:300]


class ModelEntry(BaseModel):
    """A model that a server lists."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class ModelList(BaseModel):
    """All that it lists."""

    data: list[ModelEntry]


class _LogProbs(BaseModel):
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] = []


class _Choice(BaseModel):
    token_ids: list[int] | None = None
    logprobs: _LogProbs | None = None
    finish_reason: str | None = None


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens_details: _Details | None = None


class _Answer(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None
