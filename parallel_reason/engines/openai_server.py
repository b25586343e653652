"""One server of ``/v1/completions``: what it has, whether it can be used, and the streams of its answers."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import ValidationError

from parallel_reason.engines.openai_wire import Models, Piece, piece, scoring, words
from parallel_reason.errors import EngineError, first_line

BUSY = 429
GONE = (502, 503, 504)
NEEDS = "engine 'openai' needs token ids in and out, as `vllm serve` has them"


class NoAnswerError(Exception):
    """A server that cannot answer now.

    Attributes:
        busy: it is up, and refuses for a while.
        late: it was waited for as long as may be.
    """

    def __init__(self, reason: str, *, busy: bool = False, late: bool = False) -> None:
        """``reason`` is one line that goes on from the name of the server."""
        super().__init__(reason)
        self.busy = busy
        self.late = late


@dataclass(frozen=True, slots=True)
class Card:
    """A model on a server: the name it is served by, what it was loaded from, and its context in tokens."""

    name: str
    root: str
    context: int


class Server:
    """One base URL."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        """``url`` without its ``/v1``."""
        self.url = url
        self._client = client

    async def card(self, wanted: str | None) -> Card:
        """The model that is to be used; the server's first if ``wanted`` is None.

        Raises:
            NoAnswerError: it does not answer.
            EngineError: it has no such model, or does not tell its context.
        """
        async with self._asked("GET", "/v1/models") as response:
            try:
                models = Models.model_validate_json(await response.aread()).data
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
        return Card(name, served[name], context)

    async def check(self, model: str) -> None:
        """See that it takes and returns token ids, by a request for one token.

        Raises:
            NoAnswerError: it does not answer.
            EngineError: it cannot, with the reason.
        """
        body = scoring([0, 0], model) | {"echo": False, "max_tokens": 1}
        try:
            ids = [token async for new in self.pieces(body) for token in new.ids]
        except EngineError as error:
            raise EngineError(f"{error}; {NEEDS}") from None
        if len(ids) != 1:
            raise self.error(f"returned {len(ids)} token ids for max_tokens=1; {NEEDS}")

    async def pieces(self, body: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """Run a request; leaving the loop early closes the connection, which aborts it on the server.

        Raises:
            NoAnswerError: no answer, or one that broke off.
            EngineError: an answer that is an error, or that lacks what is needed.
        """
        async with self._asked("POST", "/v1/completions", json=body) as response:
            kind = response.headers.get("content-type", "").partition(";")[0]
            if kind != "text/event-stream":
                raise self.error(f"answers {kind or 'nothing'} to stream=true")
            whole = False
            async for line in response.aiter_lines():  # to the end, so that the connection can be used again
                name, _, data = line.partition(":")
                whole = whole or (name == "data" and data.strip() == "[DONE]")
                if name != "data" or whole:
                    continue
                try:
                    new = piece(data)
                except ValueError as error:
                    raise self.error(str(error)) from None
                yield new
        if not whole:
            raise NoAnswerError("broke off its answer")

    async def kv_in_use(self) -> float:
        """The share of its KV that requests hold, 0 to 1; 0 from servers that do not tell."""
        try:
            async with self._asked("GET", "/metrics") as response:
                lines = (await response.aread()).decode(errors="replace").splitlines()
        except (NoAnswerError, EngineError):
            return 0.0
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:kv_cache_usage_perc"))

    def error(self, reason: str) -> EngineError:
        """An error that names this server."""
        return EngineError(f"engine 'openai': {self.url} {reason}")

    @asynccontextmanager
    async def _asked(self, method: str, path: str, **body: Any) -> AsyncGenerator[httpx.Response, None]:
        """A response with status 200, whose body is still to come."""
        try:
            async with self._client.stream(method, self.url + path, **body) as response:
                status = response.status_code
                if status != 200:
                    reason = f"answers {status} to {path}: {words(await response.aread())}"
                    if status == BUSY or status in GONE:
                        raise NoAnswerError(reason, busy=status == BUSY)
                    raise self.error(reason + ("; give its api_key" if status == 401 else ""))
                yield response
        except httpx.ConnectTimeout as error:
            raise NoAnswerError(
                f"takes no connection within connect_timeout_s={self._client.timeout.connect:g}"
            ) from error
        except httpx.TimeoutException as error:
            raise NoAnswerError(f"sent nothing within timeout_s={self._client.timeout.read:g}", late=True) from error
        except httpx.RequestError as error:
            raise NoAnswerError(f"does not answer ({first_line(error)})") from error
