"""Requests that are sent straight to an engine, without a session."""

import itertools
from typing import Any

from parallel_reason.engines.base import Engine, EngineRequest, KVHandle, RequestOutput

numbers = itertools.count()


async def ask(engine: Engine, ids: list[int], tokens: int, **options: Any) -> RequestOutput:
    """One greedy request that samples ``tokens`` tokens; ``options`` are fields of `EngineRequest`."""
    return await engine.generate(EngineRequest(f"request {next(numbers)}", ids, tokens, **options))


async def keep(engine: Engine, ids: list[int], tokens: int = 0, **options: Any) -> tuple[KVHandle, RequestOutput]:
    """One request whose KV is kept, and the handle on it."""
    output = await ask(engine, ids, tokens, keep_kv=True, **options)
    assert output.kv is not None
    return output.kv, output
