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

from parallel_reason.engines.openai_server import Card, NoAnswerError, Server
from parallel_reason.engines.openai_wire import Piece
from parallel_reason.errors import EngineError

DOWN_S = 30.0  # a server that did not answer is passed over for so long
BACKOFF_S = (0.5, 8.0)  # before the second round, doubling, and at most


class Servers:
    """Servers of one model."""

    def __init__(self, servers: Sequence[Server], retries: int) -> None:
        """After a first round over the servers that are up come at most ``retries`` more."""
        self.all = list(servers)
        self.retries = retries
        self._down: dict[str, float] = {}  # url -> until when, on the monotonic clock

    def order(self, trace: str) -> list[Server]:
        """The servers that are up in the order of a trace; all of them if none is."""
        now = time.monotonic()
        up = [server for server in self.all if self._down.get(server.url, now) <= now]
        return sorted(up or self.all, key=lambda server: hashlib.blake2b(f"{trace} {server.url}".encode()).digest())

    def down(self, server: Server) -> None:
        """Pass a server over for a while."""
        self._down[server.url] = time.monotonic() + DOWN_S

    async def pieces(self, trace: str, body: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """Run a request; it is tried again, and elsewhere, as long as nothing of it came.

        Raises:
            EngineError: a server answered with an error, broke off or was late; or none answered.
        """
        said: dict[str, str] = {}
        for turn in range(self.retries + 1):
            if turn:
                await asyncio.sleep(min(BACKOFF_S[0] * 2 ** (turn - 1), BACKOFF_S[1]))
            for server in self.order(trace):
                begun = False
                try:
                    async with aclosing(server.pieces(body)) as pieces:
                        async for piece in pieces:
                            begun = True
                            self._down.pop(server.url, None)
                            yield piece
                    return
                except NoAnswerError as why:
                    if not why.busy:
                        self.down(server)
                    if begun or why.late:
                        raise server.error(str(why)) from why
                    said[server.url] = str(why)
        tried = f"after {self.retries + 1} tries" if self.retries else "after one try"
        raise _none_answers(said, tried)

    async def find(self, model: str | None) -> Card:
        """The model as the servers that are up have it; the others are passed over for a while.

        Raises:
            EngineError: none is up; or one cannot be used, with the reason.
        """
        looked = await asyncio.gather(*(self._look(server, model) for server in self.all))
        found = dict(zip(self.all, looked, strict=True))
        cards = {server: card for server, card in found.items() if isinstance(card, Card)}
        if not cards:
            said = {server.url: str(error) for server, error in found.items()}
            raise _none_answers(said, "(start one with `vllm serve`, or mend base_url)")
        first, card = next(iter(cards.items()))
        for server, other in cards.items():
            if other.name != card.name:
                raise server.error(f"serves {other.name!r}, but {first.url} {card.name!r}")
        return replace(card, context=min(other.context for other in cards.values()))

    async def _look(self, server: Server, model: str | None) -> Card | NoAnswerError:
        try:
            card = await server.card(model)
            await server.check(card.name)
        except NoAnswerError as error:
            self.down(server)
            return error
        return card


def _none_answers(said: dict[str, str], tried: str) -> EngineError:
    """The error when every server is down: each with its reason."""
    servers = "; ".join(f"{url} {why}" for url, why in said.items())
    return EngineError(f"engine 'openai': no server answers {tried}: {servers}")
