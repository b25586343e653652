"""What the controller asks of an engine.

An engine decodes one thread from token ids until it writes a stop, reaches ``max_tokens`` or is aborted. It never sees
a trace. All requests of all traces run in one continuous batch.

An engine that can graft hands out the KV of a thread, and takes KV of several threads as the context of the next
request. One that cannot finds a shared prefix again by its token ids.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from parallel_reason.memory import Memory
from parallel_reason.sampling import SamplingParams

StopReason = Literal["stop", "length", "abort"]
OnTokens = Callable[[list[int]], None]


@dataclass(frozen=True, slots=True)
class Decode:
    """A request: go on from ``ids``.

    Attributes:
        id: unique while the engine lives; ``abort`` takes it.
        ids: the context, token ids, at least one.
        max_tokens: at most this many new tokens; 0 computes the KV of the context and samples nothing.
        stop_ids: control tokens that end the request; the token itself is returned.
        stop_texts: control texts that end it; all tokens up to the one that completes the text are returned.
        seed: of this request alone; None leaves it to the engine.
        live: whether tokens are reported one by one, or only the first and then the rest.
        positions: of ``ids``; None for 0, 1, 2 and so on. New tokens go on one after the last.
        held: KV of the first ``sum(map(len, held))`` of ``ids``, in order; only for engines that graft. At least one
            id must be left, unless ``held`` is all of one earlier request.
        keep: whether the KV of the context and all new tokens shall be handed out.
    """

    id: str
    ids: list[int]
    max_tokens: int
    stop_ids: frozenset[int]
    sampling: SamplingParams
    stop_texts: tuple[str, ...] = ()
    seed: int | None = None
    live: bool = False
    positions: list[int] | None = None
    held: tuple["KV", ...] = ()
    keep: bool = False


class KV(Protocol):
    """KV of a run of tokens that an engine keeps until `release`; slots that several share are stored once."""

    def __len__(self) -> int:
        """How many tokens."""
        ...

    def __getitem__(self, part: slice) -> "KV":
        """KV of a part of the tokens, to be released on its own."""
        ...

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        ...


@dataclass(slots=True)
class Decoded:
    """What came of a request, whole or cut short.

    Attributes:
        ids: new token ids, a stop id included, [tokens].
        logprobs: natural-log probability of each under the model at temperature 1, [tokens].
        reason: ``stop`` (a stop id, or the model's own end), ``length`` or ``abort``.
        cached_tokens: context tokens served from the engine's prefix cache.
        first_token_s: seconds from the call to the first new token.
        kv: KV of the context and all of ``ids``, if the request asked to keep it and the engine can; some engines leave
            out the newest token, which was not computed yet.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: StopReason = "abort"
    cached_tokens: int = 0
    first_token_s: float | None = None
    kv: KV | None = None


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
        memory: its KV blocks; whoever sends requests asks there for room.
    """

    name: str
    model: str
    tokenizer: Any
    context: int
    vocabulary: int
    eos_ids: frozenset[int]
    capabilities: Capabilities
    memory: Memory

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

    async def kv_is_free(self) -> bool:
        """Whether no request and no `KV` holds memory any more."""
        ...

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` each given all ids before it, [tokens - 1]."""
        ...

    async def close(self) -> None:
        """Shut down; no process is left behind."""
        ...
