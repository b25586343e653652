"""One server of ``/v1/completions``: what it has, whether it can be used, and the streams of its answers."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import ValidationError

from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.openai.bodies import decoding_body
from parallel_reason.engines.openai.chunks import Chunk, ModelList, message, parse_chunk
from parallel_reason.engines.openai.event_stream import EventStream
from parallel_reason.engines.openai.failures import TRIED_AGAIN, NoAnswerError, no_connection, refusal
from parallel_reason.errors import EngineError

NEEDS = "engine 'openai' needs token ids in and out, as `vllm serve` has them"
CLOSED = "engine 'openai' is closed"
KV_USAGE = b"vllm:kv_cache_usage_perc"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model on a server: the name it is served by, what it was loaded from, and its context in tokens."""

    name: str
    root: str
    context: int


class Connections:
    """The connections of all servers of one engine: requests beyond ``most`` wait in order."""

    def __init__(self, client: httpx.AsyncClient, most: int) -> None:
        """All free."""
        self.client = client
        self.most = most
        self._free = asyncio.Semaphore(most)

    @asynccontextmanager
    async def open(self, method: str, url: str, **body: Any) -> AsyncGenerator[httpx.Response, None]:
        """A response whose body is still to come; leaving closes it.

        Raises:
            EngineError: the client was closed, before or meanwhile.
            httpx.RequestError: no answer, or one that broke off.
        """
        async with self._free:
            if self.client.is_closed:
                raise EngineError(CLOSED)
            try:
                async with self.client.stream(method, url, **body) as response:
                    yield response
            except httpx.RequestError as error:
                if self.client.is_closed:
                    raise EngineError(CLOSED) from error
                raise


class Server:
    """One base URL."""

    def __init__(self, url: str, connections: Connections) -> None:
        """``url`` without its ``/v1``."""
        self.url = url
        self._connections = connections

    async def card(self, wanted: str | None) -> ModelCard:
        """The model that is to be used; the server's first if ``wanted`` is None.

        Raises:
            NoAnswerError: it does not answer.
            EngineError: it has no such model, or does not report its context.
        """
        async with self._response("GET", "/v1/models") as response:
            try:
                models = ModelList.model_validate_json(await response.aread()).data
            except ValidationError:
                raise self.error(f"lists no models at /v1/models; {NEEDS}") from None
        served = {entry.id: entry.root or entry.id for entry in models}
        name = next((name for name, root in served.items() if wanted in (None, name, root)), None)
        if name is None:
            has = ", ".join(map(repr, served)) or "no model"
            raise self.error(f"serves {has}, not {wanted!r}; give what it serves as model")
        context = next((entry.max_model_len for entry in models if entry.max_model_len), None)
        if context is None:
            raise self.error(f"does not tell max_model_len at /v1/models; {NEEDS}")
        return ModelCard(name, served[name], context)

    async def check(self, model: str) -> None:
        """See that it takes and returns token ids, by a request for one token.

        Raises:
            NoAnswerError: it does not answer.
            EngineError: it cannot, with the reason.
        """
        body = decoding_body(EngineRequest("", [0, 0], 1), model)
        try:
            ids = [token async for chunk in self.chunks(body) for token in chunk.ids]
        except EngineError as error:
            raise EngineError(f"{error}; {NEEDS}") from None
        if len(ids) != 1:
            raise self.error(f"returned {len(ids)} token ids for max_tokens=1; {NEEDS}")

    async def chunks(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Run a request; leaving the loop early closes the connection, which aborts it on the server.

        Raises:
            NoAnswerError: no answer, or one that broke off.
            EngineError: an answer that is an error, or that lacks what is needed.
        """
        async with self._response("POST", "/v1/completions", json=body) as response:
            kind = response.headers.get("content-type", "").partition(";")[0]
            if kind != "text/event-stream":
                raise self.error(f"answers {kind or 'nothing'} to stream=true")
            events, whole, finish = EventStream(), False, None
            async for part in response.aiter_bytes():  # to the end, so that the connection can be used again
                for data in events.add(part):
                    whole = whole or data.strip() == b"[DONE]"
                    if not whole:
                        chunk = self._parse(data, body)
                        finish = finish or chunk.finish
                        yield chunk
        if not whole:
            raise NoAnswerError("broke off its answer", down=True)
        if not finish:
            raise self.error("ended its answer without a finish_reason")

    async def kv_in_use(self) -> float:
        """The part of its KV that requests hold, 0 to 1; 0 from servers that do not tell."""
        try:
            async with self._response("GET", "/metrics") as response:
                lines = (await response.aread()).split(b"\n")
        except (NoAnswerError, EngineError):
            return 0.0
        # A line is a name, labels in braces, which may hold blanks, a value, and sometimes a time.
        values = (line.removeprefix(KV_USAGE).rpartition(b"}")[2] for line in lines if line.startswith(KV_USAGE))
        return sum(float(value.split()[0]) for value in values)

    def error(self, reason: str) -> EngineError:
        """An error that names this server."""
        return EngineError(f"engine 'openai': {self.url} {reason}")

    def _parse(self, data: bytes, body: dict[str, Any]) -> Chunk:
        try:
            return parse_chunk(data, body)
        except ValueError as error:
            raise self.error(str(error)) from None

    @asynccontextmanager
    async def _response(self, method: str, path: str, **body: Any) -> AsyncGenerator[httpx.Response, None]:
        """A response with status 200, whose body is still to come."""
        timeout = self._connections.client.timeout
        try:
            async with self._connections.open(method, self.url + path, **body) as response:
                if response.status_code != 200:
                    raise await self._not_ok(response, path)
                yield response
        except httpx.ConnectTimeout as error:
            reason = f"takes no connection within connect_timeout_s={timeout.connect:g}"
            raise NoAnswerError(reason, down=True) from error
        except httpx.TimeoutException as error:
            reason = f"sent nothing within timeout_s={timeout.read:g}"
            raise NoAnswerError(reason, down=True, late=True) from error
        except httpx.RequestError as error:
            raise no_connection(error, self._connections.most) from error

    async def _not_ok(self, response: httpx.Response, path: str) -> NoAnswerError | EngineError:
        """The error for a response that is one."""
        status = response.status_code
        reason = f"answers {status} to {path}: {message(await response.aread())}"
        if status in TRIED_AGAIN:
            return refusal(status, reason, response.headers.get("retry-after"))
        return self.error(reason + ("; give its api_key" if status == 401 else ""))
