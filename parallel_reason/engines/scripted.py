"""An engine without a model: a policy says which tokens come next. For tests, docs and benchmarks.

Everything but the choice of tokens is as in any engine: stops, bounds, streaming, aborts, checks of a request.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from parallel_reason.engines.admission import Admission
from parallel_reason.engines.base import Capabilities, EngineRequest, OnTokens, RequestOutput, TokenDelta
from parallel_reason.engines.checks import check_thread
from parallel_reason.engines.scripted_kv import ScriptedKVHandle, check_held, context_of
from parallel_reason.errors import EngineError, InputError

OF_LOGITS = (
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "allowed_token_ids",
    "bad_words",
    "min_tokens",
    "structured_outputs",
    "lora",
)
Text = str | list[int]
NextTokens = Callable[[EngineRequest, list[int]], list[int]]
Delay = Callable[[EngineRequest], float]


class ScriptedEngine:
    """Samples what its policy says, with log-probs of 0; see `Engine`.

    Attributes:
        requests: every request it got, in order.
        outputs: what came of each of them so far.
    """

    name = "scripted"
    model = "scripted"
    precision = "no numbers"

    def __init__(
        self,
        tokenizer: Any,
        next_tokens: NextTokens,
        *,
        context: int = 4000,
        delay_s: Delay | None = None,
        graft: bool = True,
    ) -> None:
        """No request has come yet.

        Args:
            next_tokens: what follows a request's context and the tokens that it sampled; an empty list ends it as at a
                stop, and if it raises, the request fails.
            delay_s: seconds before each token of a request, infinite if it only ends when it is aborted; 0 if None.
            graft: whether requests return KV handles, which are checked for their tokens when they are used.
        """
        self.tokenizer = tokenizer
        self.context = context
        self.vocabulary = len(tokenizer)
        self.eos_ids = frozenset({tokenizer.eos_token_id})
        self.admission = Admission(None, 1)
        self.capabilities = Capabilities(graft, update_weights=True, refuses=dict.fromkeys(OF_LOGITS, "it has none"))
        self.policy_version = 0
        self.requests: list[EngineRequest] = []
        self.outputs: list[RequestOutput] = []
        self._next_tokens = next_tokens
        self._delay_s = delay_s
        self._aborts: dict[str, asyncio.Event] = {}  # of the requests that run
        self._kv: set[ScriptedKVHandle] = set()  # not released
        self._closed = False

    @classmethod
    def from_texts(cls, tokenizer: Any, texts: Mapping[str, Sequence[Text]], **options: Any) -> "ScriptedEngine":
        """An engine that writes, under every thread's label, these texts or token ids.

        A request that comes to the end of one ends as at a stop, and the next goes on with the next; after the last one
        comes the end of text.
        """
        encode = partial(tokenizer.encode, add_special_tokens=False)
        scripts = {key: [encode(part) if isinstance(part, str) else part for part in texts[key]] for key in texts}

        def next_tokens(request: EngineRequest, sampled: list[int]) -> list[int]:
            place = request.first_draw + len(sampled)
            parts = scripts.get(request.label, [])
            for number, part in enumerate(parts):
                if place < len(part):
                    return [] if number and not place and sampled else part[place:]
                place -= len(part)
            return [tokenizer.eos_token_id]

        return cls(tokenizer, next_tokens, **options)

    async def generate(self, request: EngineRequest, on_tokens: OnTokens | None = None) -> RequestOutput:
        """Take tokens from the policy until a stop."""
        if self._closed:
            raise EngineError("engine 'scripted' was closed")
        if request.id in self._aborts:
            raise InputError(f"a request with the id {request.id!r} runs already")
        if not 0 < len(request.ids) <= self.context:
            raise InputError(f"a request has between 1 and {self.context} ids, not {len(request.ids)}")
        check_thread(request.sampling, self)
        check_held(request, self._kv)
        output = RequestOutput(cached_tokens=sum(map(len, request.held)))
        self.requests.append(replace(request, ids=list(request.ids)))
        self.outputs.append(output)
        self._aborts[request.id] = asyncio.Event()
        report = on_tokens or (lambda delta: None)
        unreported: list[TokenDelta] = []
        try:
            async for delta in self._sample(request, output):
                output.add(delta)
                unreported.append(delta)
                if request.stream or len(output.ids) == 1:
                    report(unreported.pop())
        finally:
            del self._aborts[request.id]
        if self._closed:
            raise EngineError("engine 'scripted' was closed")
        for delta in unreported:
            report(delta)
        if request.keep_kv and output.finish_reason != "abort":
            tokens, first = context_of(request), (request.positions or range(len(request.ids)))[-1] + 1
            output.kv = ScriptedKVHandle([*tokens, *zip(output.ids, itertools.count(first))], self._kv)
        return output

    async def abort(self, request_ids: Collection[str]) -> None:
        """End requests; each returns what it has."""
        for name in self._aborts.keys() & set(request_ids):
            self._aborts[name].set()

    async def score(self, ids: list[int]) -> list[float]:
        """Zeros, [tokens - 1]."""
        return [0.0] * (len(ids) - 1)

    async def update_weights(self, model: str) -> None:
        """Count one more update; the policy stays."""
        self.model = model
        self.policy_version += 1

    async def kv_is_free(self) -> bool:
        """Whether no request runs and no handle is left."""
        return not self._aborts and not self._kv

    async def close(self) -> None:
        """Fail what still runs."""
        self._closed = True
        await self.abort(list(self._aborts))

    async def _sample(self, request: EngineRequest, output: RequestOutput) -> AsyncIterator[TokenDelta]:
        """New tokens one by one; at the end ``output`` has the finish reason."""
        aborted = self._aborts[request.id]
        most = min(request.max_tokens, self.context - len(request.ids))
        stops = request.stops_in(self.tokenizer)
        stop_ids = request.stop_ids | (frozenset() if request.sampling.ignore_eos else self.eos_ids)
        coming: list[int] = []
        while output.finish_reason == "abort":
            with suppress(TimeoutError):
                async with asyncio.timeout(self._delay_s(request) if self._delay_s else 0):
                    await aborted.wait()
            if aborted.is_set():
                return
            output.prefilled_tokens = len(request.ids)
            coming = coming or (list(self._next_tokens(request, list(output.ids))) if most > 0 else [])
            if not coming:
                output.finish_reason = "stop" if most > 0 else "length"
                return
            token = coming.pop(0)
            if (stops and stops.completed_by(token)) or token in stop_ids:
                output.finish_reason = "stop"
            elif len(output.ids) + 1 >= most:
                output.finish_reason = "length"
            yield TokenDelta([token], [0.0], [{token: 0.0}] if request.sampling.logprobs else [], self.policy_version)
