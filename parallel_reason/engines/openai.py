"""The openai engine: threads decode on servers of ``/v1/completions`` that take and return token ids.

``vllm serve MODEL --enable-prompt-tokens-details`` is one; without that flag the counts of cached tokens stay 0. Its
``--logprobs-mode`` must be the default, ``raw_logprobs``: log-probs are of the model at temperature 1.

An aborted request closes its connection, which frees its KV on the server. It keeps the tokens that had come; the
server sends them one by one to those who watch, else in eights, and the count of cached tokens only at the end.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import httpx

from parallel_reason.engines.base import Capabilities, Decode, Decoded, OnTokens
from parallel_reason.engines.folder import load_tokenizer
from parallel_reason.engines.openai_routing import Servers
from parallel_reason.engines.openai_server import Card, Server
from parallel_reason.engines.openai_wire import Piece, decoding, scoring
from parallel_reason.errors import InputError
from parallel_reason.memory import Memory

FREED_S = 2.0  # seconds that a server gets to free the KV of requests that have ended
_IDLE_S = 2.0  # a connection is used again for so long; vLLM itself closes it after 5 s


class OpenAIEngine:
    """One model on one or several servers. Make it with `start`."""

    name = "openai"
    capabilities = Capabilities(fork=True, graft=False, concurrent=True, update_weights=False)

    def __init__(self, client: httpx.AsyncClient, servers: Servers, card: Card, tokenizer: Any) -> None:
        """Use servers that have been checked."""
        self._client = client
        self._servers = servers
        self._open: dict[str, asyncio.Timeout] = {}
        self.model = card.name
        self.tokenizer = tokenizer
        self.context = card.context
        self.vocabulary = len(tokenizer)
        self.memory = Memory(None, 1)  # servers queue by themselves, and do not tell how large their blocks are
        self.eos_ids = frozenset({tokenizer.eos_token_id} - {None})

    @classmethod
    async def start(
        cls,
        model: str | None = None,
        *,
        base_url: str | Sequence[str],
        api_key: str | None = None,
        tokenizer: str | None = None,
        timeout_s: float = 600,
        connect_timeout_s: float = 5,
        retries: int = 2,
    ) -> "OpenAIEngine":
        """Find a model on running servers, and see that they take and return token ids.

        Args:
            model: the name it is served by, or what it was loaded from; what the servers have if None.
            base_url: of a server, such as ``http://localhost:8000``; or of several with the same model. Each trace
                stays on one, and moves on when that is down.
            api_key: what the servers ask for.
            tokenizer: a folder or Hub id; if None, what the server says its model was loaded from.
            timeout_s: how long a server may send nothing while a request is open.
            connect_timeout_s: how long connecting may take.
            retries: further rounds over the servers for a request that none of them has begun to answer.

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
        if retries < 0:
            raise InputError(f"retries must be at least 0, not {retries}")
        client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=connect_timeout_s, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_IDLE_S),
        )
        try:
            servers = Servers([Server(url, client) for url in dict.fromkeys(urls)], retries)
            card = await servers.find(model)
            fix = "give engine 'openai' its tokenizer=..."
            found = await asyncio.to_thread(load_tokenizer, tokenizer or card.root, fix)
        except BaseException:
            await client.aclose()
            raise
        return cls(client, servers, card, found)

    async def generate(self, request: Decode, on_tokens: OnTokens | None = None) -> Decoded:
        """Decode until a stop; see `Engine`. Requests ``a/b/...`` of the same ``a/b`` go to the same server."""
        decoded = Decoded()
        begun = time.perf_counter()
        body = decoding(request, self.model)
        try:
            async with (
                asyncio.timeout(None) as self._open[request.id],  # which `abort` ends
                aclosing(self._servers.pieces("/".join(request.id.split("/")[:2]), body)) as pieces,
            ):
                async for piece in pieces:
                    if piece.ids and not decoded.ids:
                        decoded.first_token_s = time.perf_counter() - begun
                    decoded.ids += piece.ids
                    decoded.logprobs += [value for value in piece.logprobs if value is not None]
                    decoded.cached_tokens += piece.cached_tokens
                    if piece.finish:
                        decoded.reason = piece.finish
                        self._learn(request, decoded, piece)
                    if piece.ids and on_tokens:
                        on_tokens(list(piece.ids))
        except TimeoutError:
            if request.id in self._open:
                raise
        finally:
            self._open.pop(request.id, None)
        return decoded

    async def abort(self, request_id: str) -> None:
        """End a request now, by closing its connection."""
        if scope := self._open.pop(request_id, None):
            scope.reschedule(asyncio.get_running_loop().time())

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]`` each given all ids before it, [tokens - 1]."""
        scores: list[float] = []
        async with aclosing(self._servers.pieces(str(ids), scoring(ids, self.model))) as pieces:
            async for piece in pieces:
                scores += [value for value in piece.logprobs if value is not None]
        return scores[: len(ids) - 1]

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

    def _learn(self, request: Decode, decoded: Decoded, piece: Piece) -> None:
        """Take note of an end of text that only the server knew."""
        own = piece.stopped_at is None or isinstance(piece.stopped_at, int)
        if piece.finish == "stop" and own and decoded.ids[-1] not in request.stop_ids:
            self.eos_ids |= {decoded.ids[-1]}


def _root(url: str) -> str:
    """A base URL without its ``/v1``."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise InputError(f"base_url {url!r} is no address; write it as http://localhost:8000")
    return url.rstrip("/").removesuffix("/v1")
