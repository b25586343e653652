"""Which of several servers a request goes to, and what is done when that one does not answer.

All requests of one trace go to the same server, whose prefix cache knows them. Which one is a rendezvous hash of the
trace: when a server is down, its traces alone move, each to the next in its own order.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from parallel_reason.engines.openai.chunks import Chunk
from parallel_reason.engines.openai.failures import NoAnswerError
from parallel_reason.engines.openai.retries import Retries
from parallel_reason.engines.openai.server import ModelCard, Server
from parallel_reason.errors import EngineError

DOWN_S = 30.0  # a server that cannot be reached is passed over for so long


class Servers:
    """Servers of one model."""

    def __init__(self, servers: Sequence[Server], retries: int, busy_timeout_s: float) -> None:
        """See `Retries`."""
        self.all = list(servers)
        self.retries = retries
        self.busy_timeout_s = busy_timeout_s
        self._passed_over: dict[str, float] = {}  # url -> until when, on the monotonic clock

    def order(self, trace: str) -> list[Server]:
        """The servers that are not passed over in the order of a trace; all of them if all are."""
        now = time.monotonic()
        up = [server for server in self.all if self._passed_over.get(server.url, now) <= now]
        return sorted(up or self.all, key=lambda server: hashlib.blake2b(f"{trace} {server.url}".encode()).digest())

    async def chunks(self, trace: str, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Run a request; it is tried again, and elsewhere, as long as nothing of it came.

        Raises:
            EngineError: a server answered with an error, broke off or was late; or none answered.
        """
        retries = Retries(self.retries, self.busy_timeout_s)
        while True:
            refusals: dict[str, NoAnswerError] = {}
            for server in self.order(trace):
                started = False
                try:
                    async with aclosing(server.chunks(body)) as chunks:
                        async for chunk in chunks:
                            started = True
                            self._passed_over.pop(server.url, None)
                            yield chunk
                    return
                except NoAnswerError as why:
                    self._pass_over(server, why)
                    if started or why.late:
                        raise server.error(str(why)) from why
                    refusals[server.url] = why
            wait_s = retries.wait_s(refusals.values())
            if wait_s is None:
                raise _none_answers(refusals, str(retries))
            await asyncio.sleep(wait_s)

    async def find(self, model: str | None) -> ModelCard:
        """The model as the servers that are up have it; the others are passed over for a while.

        Raises:
            EngineError: none is up; or one cannot be used, with the reason.
        """
        looked = await asyncio.gather(*(self._look(server, model) for server in self.all))
        found = dict(zip(self.all, looked, strict=True))
        cards = {server: card for server, card in found.items() if isinstance(card, ModelCard)}
        if not cards:
            refusals = {server.url: why for server, why in found.items() if isinstance(why, NoAnswerError)}
            raise _none_answers(refusals, "(start one with `vllm serve`, or correct base_url)")
        first, card = next(iter(cards.items()))
        for server, other in cards.items():
            if other.name != card.name:
                raise server.error(f"serves {other.name!r}, but {first.url} {card.name!r}")
        return replace(card, context=min(other.context for other in cards.values()))

    async def _look(self, server: Server, model: str | None) -> ModelCard | NoAnswerError:
        """What one server has; or why it cannot be asked, after some tries if it is there at all."""
        retries = Retries(self.retries, self.busy_timeout_s)
        while True:
            try:
                card = await server.card(model)
                await server.check(card.name)
                return card
            except NoAnswerError as why:
                self._pass_over(server, why)
                wait_s = None if why.down else retries.wait_s([why])
                if wait_s is None:
                    return why
            await asyncio.sleep(wait_s)

    def _pass_over(self, server: Server, why: NoAnswerError) -> None:
        """Let other servers take the requests of one that is down, or asks for time."""
        seconds = DOWN_S if why.down else why.retry_after_s
        if seconds is not None:
            self._passed_over[server.url] = time.monotonic() + seconds


def _none_answers(refusals: dict[str, NoAnswerError], tried: str) -> EngineError:
    """The error when every server is down: each with its reason."""
    servers = "; ".join(f"{url} {why}" for url, why in refusals.items())
    return EngineError(f"engine 'openai': no server answers {tried}: {servers}")
