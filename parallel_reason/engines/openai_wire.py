"""What goes over the wire to ``/v1/completions``: a request as JSON, and a chunk of its answer as a `Piece`.

The fields are those of ``vllm serve``: OpenAI's, and vLLM's for token ids, stops and top-k. All that bears on sampling
is set in the request, since a server's defaults come from the model's ``generation_config.json``.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, ValidationError

from parallel_reason.engines.base import Decode

Finish = Literal["stop", "length"]
INTERVAL = 8  # tokens a chunk where nobody watches them one by one


@dataclass(frozen=True, slots=True)
class Piece:
    """What came at once.

    Attributes:
        ids: new tokens.
        logprobs: of each; for a scored prompt, of the prompt, whose first has none.
        finish: why the request ended, if it did.
        stopped_at: the token or text of the request that ended it; None for the model's own end of text.
        cached_tokens: of the prompt; comes last, from servers that tell.
    """

    ids: list[int]
    logprobs: list[float | None]
    finish: Finish | None = None
    stopped_at: int | str | None = None
    cached_tokens: int = 0


def decoding(request: Decode, model: str) -> dict[str, Any]:
    """The body of a request for new tokens."""
    return {
        **scoring(request.ids, model),
        "echo": False,
        "max_tokens": request.max_tokens,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "top_k": request.sampling.top_k,
        "seed": request.seed,
        "stop_token_ids": sorted(request.stop_ids),
        "stop": list(request.stop_texts),
        "stream_interval": 1 if request.live else INTERVAL,
    }


def scoring(ids: list[int], model: str) -> dict[str, Any]:
    """The body of a request for the log-probs of a prompt."""
    return {
        "model": model,
        "prompt": list(ids),
        "echo": True,
        "max_tokens": 0,
        "temperature": 0.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": 0,
        "return_token_ids": True,
        "skip_special_tokens": False,
        "include_stop_str_in_output": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def piece(data: str) -> Piece:
    """A chunk of a stream; raises ValueError, in words that go on from "the server", if it cannot be used."""
    try:
        chunk = _Chunk.model_validate_json(data)
    except ValidationError:
        wrong = f"failed: {words(data)}" if "error" in as_object(data) else "streams something else than completions"
        raise ValueError(wrong) from None
    details = chunk.usage.prompt_tokens_details if chunk.usage else None
    cached = (details.cached_tokens or 0) if details else 0
    if not chunk.choices:
        return Piece([], [], cached_tokens=cached)
    choice = chunk.choices[0]
    if choice.token_ids is None:
        raise ValueError("returns no token ids for return_token_ids=true")
    if choice.logprobs is None or len(choice.logprobs.token_logprobs) < len(choice.token_ids):
        raise ValueError("returns no log-probs for logprobs=0")
    if choice.finish_reason not in (None, "stop", "length"):
        raise ValueError(f"ended a request: {choice.finish_reason}")
    finish = cast(Finish | None, choice.finish_reason)
    return Piece(choice.token_ids, choice.logprobs.token_logprobs, finish, choice.stop_reason, cached)


def as_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def words(answer: bytes | str) -> str:
    """What an answer says is wrong, in one line."""
    said = as_object(answer)
    error = said.get("error", said)
    told = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    raw = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    return " ".join(str(told or raw or "no reason given").split())[:300]


class Entry(BaseModel):
    """A model that a server lists."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class Models(BaseModel):
    """All that it lists."""

    data: list[Entry]


class _LogProbs(BaseModel):
    token_logprobs: list[float | None]


class _Choice(BaseModel):
    token_ids: list[int] | None = None
    logprobs: _LogProbs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = ""


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens_details: _Details | None = None


class _Chunk(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None
