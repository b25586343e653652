"""The protocol of an engine, and what goes in and out of it.

An engine decodes one thread from token ids until it writes a stop, reaches ``max_tokens`` or is aborted. It never sees
a trace. The requests of all traces run in one continuous batch.

An engine that can graft returns a handle on the KV of a thread, and takes the KV of several threads as the context of
the next request. One that cannot finds a shared prefix again by its token ids.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from parallel_reason.engines.admission import Admission
from parallel_reason.sampling import SamplingParams
from parallel_reason.text import StopTexts

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """New tokens of a request, as they come.

    Attributes:
        ids: token ids, [tokens].
        logprobs: natural-log probability of each under the model at temperature 1, [tokens].
        top_logprobs: token id to log-prob of the most likely tokens, if the request asked for them, [tokens] or empty.
        policy_version: of the weights that sampled them.
    """

    ids: list[int]
    logprobs: list[float]
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    policy_version: int = 0


OnTokens = Callable[[TokenDelta], None]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Continue one thread from ``ids``.

    Attributes:
        id: unique while the engine lives; ``abort`` takes it.
        ids: the context, token ids, at least one.
        max_tokens: at most this many new tokens; 0 computes the KV of the context and samples nothing.
        stop_ids: control tokens that end the request; the token itself is returned.
        stop_texts: control texts that end it, looked for in sampled text only; all tokens up to the one that completes
            the text are returned.
        sampling: of this thread. Engines do not read what is of a whole trace or thread: ``n``, ``seed``, ``threads``,
            ``below``, ``max_tokens`` and ``stop``.
        seed: of this thread; None leaves the noise to the engine.
        first_draw: how many tokens the thread sampled in earlier requests. New token k of this request is drawn with
            noise number ``first_draw + k`` of the seed, so where a thread is cut into requests does not matter.
        sampled: what the thread sampled in earlier requests and still sees, if ``sampling`` counts that, [tokens].
        tail: how many of the last ``ids`` the thread sampled itself, as far as stop texts and bad words may begin in
            them.
        stream: whether tokens are reported one by one, or only the first and then the rest.
        positions: of ``ids``; None for 0, 1, 2 and so on. New tokens go on one after the last.
        held: KV of the first ``sum(map(len, held))`` of ``ids``, in order; only for engines that graft. At least one
            id must be left, unless ``held`` is all of one earlier request.
        keep_kv: whether to return a handle on the KV of the context and all new tokens.
        trace: which trace it belongs to: requests of one trace go to the same server.
        label: which thread of the trace.
    """

    id: str
    ids: list[int]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: frozenset[int] = frozenset()
    stop_texts: tuple[str, ...] = ()
    seed: int | None = None
    first_draw: int = 0
    sampled: list[int] = field(default_factory=list)
    tail: int = 0
    stream: bool = False
    positions: list[int] | None = None
    held: tuple["KVHandle", ...] = ()
    keep_kv: bool = False
    trace: str = ""
    label: str = ""

    def stops_in(self, tokenizer: Any) -> StopTexts | None:
        """What looks for its stop texts; None if it has none."""
        if not self.stop_texts:
            return None
        return StopTexts(tokenizer, self.stop_texts, self.ids[len(self.ids) - self.tail :])


class KVHandle(Protocol):
    """KV of consecutive tokens that an engine keeps until `release`; what several handles share is stored once."""

    def __len__(self) -> int:
        """How many tokens."""
        ...

    def __getitem__(self, part: slice) -> "KVHandle":
        """A handle on a part of the tokens, to be released on its own."""
        ...

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        ...


@dataclass(slots=True)
class RequestOutput:
    """Everything that came of a request, whole or cut short.

    Attributes:
        ids: new token ids, a stop id included, [tokens].
        logprobs: natural-log probability of each under the model at temperature 1, [tokens].
        top_logprobs: see `TokenDelta`, [tokens] or empty.
        policy_versions: of the weights that sampled each, [tokens].
        finish_reason: ``stop`` (a stop, or the model's own end of text), ``length`` or ``abort``.
        prefilled_tokens: context tokens that the engine took in: 0 if the request was ended before it ran.
        cached_tokens: of these, served from the engine's prefix cache or from ``held``; None if it cannot tell.
        kv: a handle on the KV of the context and all of ``ids``, if the request asked to keep it; some engines leave
            out the newest token, which was not computed yet.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    policy_versions: list[int] = field(default_factory=list)
    finish_reason: FinishReason = "abort"
    prefilled_tokens: int = 0
    cached_tokens: int | None = 0
    kv: KVHandle | None = None

    def add(self, delta: TokenDelta) -> None:
        """Append new tokens."""
        self.ids += delta.ids
        self.logprobs += delta.logprobs
        self.top_logprobs += delta.top_logprobs
        self.policy_versions += [delta.policy_version] * len(delta.ids)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do beyond decoding.

    Attributes:
        graft: the KV of children can be kept at a join.
        update_weights: weights can be changed while it lives.
        refuses: the fields of `SamplingParams` that it cannot do, each with the reason and what to do.
    """

    graft: bool
    update_weights: bool
    refuses: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """One loaded model. Used from one event loop.

    Attributes:
        name: of the kind of engine.
        model: what it was loaded from.
        context: tokens a thread may see, prompt and output together.
        vocabulary: token ids run from 0 to one below it.
        eos_ids: the model's own ends of text.
        precision: in what it computes, for people: ``float32, attention by CPU_ATTN``.
        admission: its KV blocks; a run asks it for room before it sends a request.
        policy_version: how many times its weights were updated.
    """

    name: str
    model: str
    tokenizer: Any
    context: int
    vocabulary: int
    eos_ids: frozenset[int]
    precision: str
    capabilities: Capabilities
    admission: Admission
    policy_version: int

    async def generate(self, request: EngineRequest, on_tokens: OnTokens | None = None) -> RequestOutput:
        """Decode until a stop; an aborted request returns what it has.

        Args:
            on_tokens: called with new tokens as they come.

        Raises:
            InputError: the request cannot be run.
            EngineError: the engine failed or died.
        """
        ...

    async def abort(self, request_ids: Collection[str]) -> None:
        """End requests now and free their KV; ids that are unknown or have ended are ignored."""
        ...

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` each given all ids before it, [tokens - 1]."""
        ...

    async def update_weights(self, model: str) -> None:
        """Go on with the weights of another folder; adds 1 to ``policy_version``. See `Capabilities`.

        Raises:
            ModelError: no model lies there.
            EngineError: the engine cannot do it, or failed; after a failure it cannot be used any more.
        """
        ...

    async def kv_is_free(self) -> bool:
        """Whether no request and no `KVHandle` holds memory any more."""
        ...

    async def close(self) -> None:
        """Shut down; no process is left behind."""
        ...
