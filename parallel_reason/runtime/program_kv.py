"""The KV that a thread of a program begins with: its parent's, and that of the children which it joined.

A program forks and joins without waiting for the engine. What KV that takes is computed and put together before the
next request of the thread.
"""

import asyncio

from parallel_reason.engines.admission import TraceBlocks
from parallel_reason.runtime import transitions
from parallel_reason.runtime.program_state import KVOfJoin, ProgramState, common
from parallel_reason.runtime.requests import End, ThreadRequests

SHORTEST_PREFIX = 16  # tokens of a prefix, from which on it is computed before several children begin with it


class ProgramKV:
    """Of all threads of one trace."""

    def __init__(self, requests: ThreadRequests, blocks: TraceBlocks, *, grafts: bool) -> None:
        """``grafts``: whether the engine hands out KV."""
        self._requests = requests
        self._blocks = blocks
        self._grafts = grafts

    def bind(self, state: ProgramState) -> None:
        """Let a thread begin with what its parent has of what both see."""
        state.bound, parent = True, state.parent
        assert parent is not None
        shared = common(parent.live.view, state.live.view)
        state.kv = parent.kv.copy(shared)
        transitions.has_computed(state.live, min(parent.live.computed, shared))

    async def ready(self, state: ProgramState) -> End | None:
        """Have the KV with which the next request of a thread begins; how it ends, if that failed."""
        async with state.lock:
            if not state.bound and state.parent is not None:
                end = await self.ready(state.parent)
                if end is None and not state.beside_parent:
                    end = await self._computed_once(state.parent)
                if end is not None:
                    return end
                self.bind(state)
            while state.joins:
                if end := await self._put_together(state, state.joins[0]):
                    return end
                state.joins.pop(0)
            if self._grafts and (state.kv.missing or len(state.kv) < state.grafted):
                return "failed", f"the KV that thread {state.live.label} would go on from is gone"
        return None

    async def _computed_once(self, parent: ProgramState) -> End | None:
        """Compute what children begin with, before they do it each for itself."""
        live = parent.live
        async with parent.lock:
            if self._grafts:
                return await self._requests.cover(parent)
            several = len(parent.waiting[-1].children) > 1 if parent.waiting else False
            if several and live.computed + SHORTEST_PREFIX < len(live.view) < self._requests.window:
                return await self._requests.compute(parent)
        return None

    async def _put_together(self, state: ProgramState, join: KVOfJoin) -> End | None:
        covering = join.children if join.rule == "graft" else join.children[:1]
        ends = await asyncio.gather(*(self.ready(child) for child in covering))
        if join.rule == "graft":
            ends += await asyncio.gather(*(self._covered(child) for child in join.children))
        if end := next((end for end in ends if end is not None), None):
            return end
        if self._grafts:
            state.kv.keep_first(join.before)
            short = len(state.kv) < join.before
            state.take_over(join.children, join.rule, join.before, self._blocks)
            state.kv.missing |= short and join.rule == "graft"
        return None

    async def _covered(self, child: ProgramState) -> End | None:
        async with child.lock:
            return await self._requests.cover(child)
