"""The openai engine: threads decode on servers of ``/v1/completions`` that take and return token ids.

``vllm serve MODEL --enable-prompt-tokens-details`` is one; without that flag the counts of cached tokens are None. Its
``--logprobs-mode`` must be the default, ``raw_logprobs``: log-probs are of the model at temperature 1.

A vLLM server on a CPU dies of a seeded request whose prompt is computed in several steps, longer than its
``--max-num-batched-tokens`` or beside many others. Start it with
``--logits-processors parallel_reason.engines.vllm.seeded:SeededSampler`` and this engine with ``seeded_sampler=True``.

An aborted request, and one that wrote a stop text, closes its connection, which frees its KV on the server. It keeps
the tokens that had come; the count of cached tokens, which a server sends at the end, is None.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from parallel_reason.engines.admission import Admission
from parallel_reason.engines.base import Capabilities, EngineRequest, OnTokens, RequestOutput, TokenDelta
from parallel_reason.engines.checks import check_thread
from parallel_reason.engines.models import load_tokenizer, named_ends
from parallel_reason.engines.openai.bodies import decoding_body, scoring_body
from parallel_reason.engines.openai.chunks import Chunk
from parallel_reason.engines.openai.routing import Servers
from parallel_reason.engines.openai.server import Connections, ModelCard, Server
from parallel_reason.engines.seeded_draw import OVER_A_THREAD, SeededDraw
from parallel_reason.errors import EngineError, InputError

NEEDS_SAMPLER = "servers count over one request, not over a thread; start them and this engine with seeded_sampler"
FREED_S = 2.0  # seconds that a server gets to free the KV of requests that have ended
_IDLE_S = 2.0  # a connection is used again for so long; vLLM itself closes it after 5 s


class OpenAIEngine:
    """One model on one or several servers. Make it with `start`."""

    name = "openai"
    policy_version = 0
    precision = "the servers' own"

    def __init__(
        self,
        client: httpx.AsyncClient,
        servers: Servers,
        card: ModelCard,
        tokenizer: Any,
        eos_ids: Collection[int],
        *,
        seeded_sampler: bool,
    ) -> None:
        """Use servers that have been checked.

        Args:
            eos_ids: ends of text of the model, besides the tokenizer's.
        """
        self._client = client
        self._servers = servers
        self._seeded_sampler = seeded_sampler
        refuses = {} if seeded_sampler else dict.fromkeys(OVER_A_THREAD, NEEDS_SAMPLER)
        self.capabilities = Capabilities(graft=False, update_weights=False, refuses=refuses)
        self._open: dict[str, asyncio.Timeout] = {}
        self.model = card.name
        self.tokenizer = tokenizer
        self.context = card.context
        self.vocabulary = len(tokenizer)
        self.admission = Admission(None, 1)  # servers queue by themselves, and do not tell how large their blocks are
        self.eos_ids = frozenset(
            token for token in (*eos_ids, tokenizer.eos_token_id) if token in range(self.vocabulary)
        )

    @classmethod
    async def start(
        cls,
        model: str | None = None,
        *,
        base_url: str | Sequence[str],
        api_key: str | None = None,
        tokenizer: str | None = None,
        eos_ids: Sequence[int] | None = None,
        timeout_s: float = 600,
        connect_timeout_s: float = 5,
        busy_timeout_s: float = 300,
        retries: int = 2,
        connections: int = 512,
        seeded_sampler: bool = False,
    ) -> "OpenAIEngine":
        """Find a model on running servers, and see that they take and return token ids.

        Args:
            model: the name it is served by, or what it was loaded from; what the servers have if None.
            base_url: of a server, such as ``http://localhost:8000``; or of several with the same model. Each trace
                stays on one, and moves on when that is down.
            api_key: what the servers ask for.
            tokenizer: a folder or Hub id; if None, what the server says its model was loaded from.
            eos_ids: the model's ends of text, besides the tokenizer's; if None, those of ``generation_config.json``, or
                else of ``config.json``, where the tokenizer comes from.
            timeout_s: how long a server may send nothing while a request is open.
            connect_timeout_s: how long connecting may take.
            busy_timeout_s: how long a request waits in all for servers that answer 429 or with ``Retry-After``.
            retries: further rounds over the servers for a request that none of them has started to answer.
            connections: open at once, to all servers together; requests beyond wait. Each takes a file descriptor.
            seeded_sampler: the servers were started with
                ``--logits-processors parallel_reason.engines.vllm.seeded:SeededSampler``, which draws tokens that do
                not depend on how a thread is cut into requests; a vLLM server on a CPU needs it for seeds with long
                prompts, and every server for penalties, ``bad_words``, ``min_tokens`` and ``structured_outputs``.

        Raises:
            InputError: an option that cannot be used.
            EngineError: no server is there, or one cannot be used, with the reason.
            ModelError: the tokenizer cannot be loaded.
        """
        urls = [_root(url) for url in ([base_url] if isinstance(base_url, str) else base_url)]
        if not urls:
            raise InputError("base_url is empty; give the address of a server, such as http://localhost:8000")
        if min(timeout_s, connect_timeout_s) <= 0:
            raise InputError(f"a time-out must be above 0 s, not {min(timeout_s, connect_timeout_s):g}")
        if min(retries, busy_timeout_s) < 0:
            raise InputError(f"retries and busy_timeout_s must be at least 0, not {min(retries, busy_timeout_s):g}")
        if connections < 1:
            raise InputError(f"connections must be at least 1, not {connections}")
        client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=connect_timeout_s, pool=None),
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=_IDLE_S),
        )
        try:
            pool = Connections(client, connections)
            servers = Servers([Server(url, pool) for url in dict.fromkeys(urls)], retries, busy_timeout_s)
            card = await servers.find(model)
            fix = "give engine 'openai' its tokenizer=..."
            place = tokenizer or card.root
            found = await asyncio.to_thread(load_tokenizer, place, fix)
            if wrong := [token for token in eos_ids or () if not 0 <= token < len(found)]:
                raise InputError(f"eos_ids: token id {wrong[0]} is not in the vocabulary of {len(found)}")
            ends = await asyncio.to_thread(named_ends, place) if eos_ids is None else eos_ids
        except BaseException:
            await client.aclose()
            raise
        return cls(client, servers, card, found, ends, seeded_sampler=seeded_sampler)

    async def generate(self, request: EngineRequest, on_tokens: OnTokens | None = None) -> RequestOutput:
        """Decode until a stop; see `Engine`. Requests of the same ``trace`` go to the same server."""
        output = RequestOutput()
        check_thread(request.sampling, self)
        stop_texts = request.stops_in(self.tokenizer)
        ours = self._seeded_sampler and request.max_tokens > 0
        draw = SeededDraw.of(request, self.tokenizer, self.eos_ids) if ours else None
        body = decoding_body(request, self.model, self.eos_ids, draw)
        try:
            async with (
                asyncio.timeout(None) as self._open[request.id],  # which `abort` ends
                aclosing(self._servers.chunks(request.trace or request.id, body)) as chunks,
            ):
                async for chunk in chunks:
                    stop = stop_texts.kept(chunk.ids) if stop_texts else None
                    kept = min(len(chunk.ids) if stop is None else stop, request.max_tokens)
                    delta = TokenDelta(chunk.ids[:kept], chunk.logprobs[:kept], chunk.top_logprobs[:kept])
                    self._add(request, output, chunk, delta)
                    if delta.ids and on_tokens:
                        on_tokens(delta)
                    if stop is not None:
                        output.finish_reason = "stop"
                        if not chunk.finish:
                            break  # the connection closes
        except TimeoutError:
            if request.id in self._open:
                raise
        finally:
            self._open.pop(request.id, None)
        return output

    async def abort(self, request_ids: Collection[str]) -> None:
        """End requests now, by closing their connections, all at once."""
        now = asyncio.get_running_loop().time()
        for request_id in request_ids:
            if scope := self._open.pop(request_id, None):
                scope.reschedule(now)

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` each given all ids before it, [tokens - 1]."""
        async with aclosing(self._servers.chunks(str(ids), scoring_body(ids, self.model))) as chunks:
            return [value async for chunk in chunks for value in chunk.logprobs]

    async def update_weights(self, model: str) -> None:
        """Refused: a server's weights are its own; see `Capabilities`."""
        raise EngineError("engine 'openai' cannot change the weights of its servers")

    async def kv_is_free(self) -> bool:
        """Whether no request is open, and none holds KV on a server that tells; requests of others count there too."""
        until = time.monotonic() + FREED_S
        while not self._open:
            if not any([await server.kv_in_use() for server in self._servers.order("")]):
                return True
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.05)
        return False

    async def close(self) -> None:
        """Close every connection; the servers stay."""
        await self._client.aclose()

    def _add(self, request: EngineRequest, output: RequestOutput, chunk: Chunk, delta: TokenDelta) -> None:
        """Take in what came; and an end of text that only the server knew."""
        if chunk.ids and not output.prefilled_tokens:
            output.prefilled_tokens, output.cached_tokens = len(request.ids), None
        output.add(delta)
        if chunk.cached_tokens is not None:
            output.cached_tokens = chunk.cached_tokens
        if chunk.finish:
            output.finish_reason = chunk.finish if request.max_tokens else "length"
        if chunk.finish == "stop" and chunk.ids and chunk.ids[-1] not in request.stop_ids:
            self.eos_ids |= {chunk.ids[-1]}


def _root(url: str) -> str:
    """A base URL without its ``/v1``."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise InputError(f"base_url {url!r} is no address; write it as http://localhost:8000")
    return url.rstrip("/").removesuffix("/v1")
