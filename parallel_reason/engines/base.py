"""What the controller asks of an engine.

An engine decodes one thread from token ids until it writes a stop id, reaches ``max_tokens`` or is aborted. It never
sees text and never a trace. All requests of all traces run in one continuous batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from parallel_reason.sampling import SamplingParams

StopReason = Literal["stop", "length", "abort"]
OnTokens = Callable[[list[int]], None]


@dataclass(frozen=True, slots=True)
class Decode:
    """A request: go on from ``ids``.

    Attributes:
        id: unique while the engine lives; ``abort`` takes it.
        ids: the context, token ids, at least one.
        max_tokens: at most this many new tokens.
        stop_ids: control tokens that end the request; the token itself is returned.
        seed: of this request alone; None leaves it to the engine.
        live: whether tokens are reported one by one, or only the first and then the rest.
    """

    id: str
    ids: list[int]
    max_tokens: int
    stop_ids: frozenset[int]
    sampling: SamplingParams
    seed: int | None = None
    live: bool = False


@dataclass(slots=True)
class Decoded:
    """What came of a request, whole or cut short.

    Attributes:
        ids: new token ids, a stop id included, [tokens].
        logprobs: natural-log probability of each under the model at temperature 1, [tokens].
        reason: ``stop`` (a stop id, or the model's own end), ``length`` or ``abort``.
        cached_tokens: context tokens served from the engine's prefix cache.
        first_token_s: seconds from the call to the first new token.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: StopReason = "abort"
    cached_tokens: int = 0
    first_token_s: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do.

    Attributes:
        fork: children reuse the KV of a shared prefix.
        graft: children's KV can be kept at a join.
        concurrent: requests run at once in one batch.
        update_weights: weights can be changed while it lives.
    """

    fork: bool
    graft: bool
    concurrent: bool
    update_weights: bool


class Engine(Protocol):
    """One loaded model. Used from one event loop.

    Attributes:
        model: what it was loaded from.
        context: tokens a thread may see, prompt and output together.
        vocabulary: token ids run from 0 to one below it.
        eos_ids: the model's own ends of text.
    """

    name: str
    model: str
    tokenizer: Any
    context: int
    vocabulary: int
    eos_ids: frozenset[int]
    capabilities: Capabilities

    async def generate(self, request: Decode, on_tokens: OnTokens | None = None) -> Decoded:
        """Decode until a stop; an aborted request returns what it has.

        Args:
            on_tokens: called with new ids as they come.

        Raises:
            EngineError: the engine died.
        """
        ...

    async def abort(self, request_id: str) -> None:
        """End a request now and free its KV; unknown and ended ids are passed over."""
        ...

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` each given all ids before it, [tokens - 1]."""
        ...

    async def close(self) -> None:
        """Shut down; no process is left behind."""
        ...
