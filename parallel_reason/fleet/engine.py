"""A fleet as a session sees it: the facts of its engines, and what is asked of all of them or any of them."""

import os
from collections.abc import Collection

from parallel_reason.engines.admission import Admission
from parallel_reason.engines.base import EngineRequest, OnTokens, RequestOutput
from parallel_reason.errors import InputError
from parallel_reason.fleet.messages import EngineFacts
from parallel_reason.fleet.pool import EnginePool


class FleetEngine:
    """Has what `Engine` has, but runs whole traces only, by ``pool``."""

    def __init__(self, pool: EnginePool, facts: EngineFacts) -> None:
        """``facts`` are of one of its engines, and all are alike."""
        self.pool = pool
        self.name = facts.name
        self.model = facts.model
        self.tokenizer = facts.tokenizer
        self.context = facts.context
        self.vocabulary = facts.vocabulary
        self.eos_ids = facts.eos_ids
        self.precision = facts.precision
        self.capabilities = facts.capabilities
        self.admission = Admission(facts.blocks, facts.block_size)
        self.policy_version = 0

    async def generate(self, request: EngineRequest, on_tokens: OnTokens | None = None) -> RequestOutput:
        """Raise InputError: the threads of a trace stay with the engine that runs the trace."""
        raise InputError(f"a fleet runs whole traces, not request {request.id!r}: use a session without a fleet")

    async def abort(self, request_ids: Collection[str]) -> None:
        """It has no requests."""

    async def score(self, ids: list[int]) -> list[float]:
        """Log-probs of ``ids[1:]``, by any engine."""
        return await self.pool.score(ids)

    async def update_weights(self, model: str) -> None:
        """All engines go on with other weights; one that is restarted takes them before it serves.

        Raises:
            ModelError, EngineError: one cannot load them; all go on with those of before.
        """
        self.policy_version = await self.pool.actors.update_weights(absolute(model))

    async def kv_is_free(self) -> bool:
        """Whether no engine holds KV."""
        return await self.pool.kv_is_free()

    async def close(self) -> None:
        """End all engines."""
        await self.pool.close()


def absolute(model: str) -> str:
    """A folder by its whole path, as actors run elsewhere; the id of a model as it is."""
    folder = os.path.expanduser(model)
    return os.path.abspath(folder) if os.path.isdir(folder) else model
