"""One trace of the soak: what it is given at random, and what happens to it while it runs."""

import asyncio
import random
from dataclasses import dataclass, replace
from typing import Any, cast

from parallel_reason import Limits, SamplingParams, Session, Trace
from parallel_reason.dialects import bind
from parallel_reason.engines.base import Engine, EngineRequest, OnTokens, RequestOutput
from parallel_reason.engines.vllm.engine import VllmEngine
from parallel_reason.runtime.events import TraceFinished

DIALECTS = ("multiverse", "npr", "parallel_r1", "parathinker")  # that graft
FATES = {  # weights
    "none": 75, "deadline": 8, "task cancelled": 4, "trace cancelled": 4, "refused": 3, "released": 3, "reset": 3,
}  # fmt: skip
EARLY_S = 3.0  # cancels, deadlines and resets come within these seconds
HUNG_S = 600.0


class FaultyEngine:
    """An engine that spoils one request of a trace."""

    def __init__(self, engine: Engine, fate: str, after: int) -> None:
        """Request number ``after`` of those that hold KV is spoiled, counted from 1."""
        self.engine = engine
        self.fate = fate
        self.left = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def generate(self, request: EngineRequest, on_tokens: OnTokens | None = None) -> RequestOutput:
        """Decode; or send an id that no vocabulary has, or KV that was released."""
        if self.fate in ("refused", "released") and request.held:
            self.left -= 1
            if self.left == 0 and self.fate == "refused":
                request = replace(request, ids=[*request.ids[:-1], 1 << 30])
            elif self.left == 0:
                gone = request.held[0][:]
                gone.release()
                request = replace(request, held=(gone, *request.held[1:]))
        return await self.engine.generate(request, on_tokens)


@dataclass(frozen=True)
class Ended:
    """How a trace ended.

    Attributes:
        how: the status of its root; ``task cancelled``, ``raised`` or ``hung`` if there is no trace.
        error: what was raised.
    """

    fate: str
    how: str
    trace: Trace | None = None
    error: str = ""


async def run_one(engine: VllmEngine, seed: int, number: int) -> Ended:
    """Run trace ``number``; all that is random about it comes from its number."""
    rng = random.Random(f"{seed}/{number}")
    fate = rng.choices(list(FATES), list(FATES.values()))[0]
    soon_s = EARLY_S * rng.random() ** 2
    limits = Limits(
        depth=rng.randint(1, 4), children=rng.randint(2, 8), forks=rng.randint(1, 12),
        threads=rng.choice((1, 4, 64)), tokens=rng.randint(50, 1500), tokens_per_thread=rng.randint(20, 150),
        deadline_s=0.01 + soon_s if fate == "deadline" else None,
    )  # fmt: skip
    clean = rng.random() < 0.7  # hardly a malformed block, so more forks
    sampling = SamplingParams(temperature=1.0, top_k=8 if clean else 0, seed=number)
    faulty = cast(Engine, FaultyEngine(engine, fate, rng.randint(1, 4)))
    session = Session(faulty, bind(rng.choice(DIALECTS), engine.tokenizer))
    prompt = engine.tokenizer.encode("".join(rng.choices("abxys", k=rng.randint(0, 80))) + "ab")
    if fate == "trace cancelled":
        task = asyncio.create_task(_cancelled(session, prompt, sampling, limits, soon_s))
    else:
        task = asyncio.create_task(_run(session, prompt, sampling, limits))
    if fate in ("task cancelled", "reset"):
        await asyncio.wait([task], timeout=soon_s)
    if fate == "task cancelled":
        task.cancel()
    elif fate == "reset":
        await engine.llm.reset_prefix_cache(reset_connector=True)
    await asyncio.wait([task], timeout=HUNG_S)
    return _ended(fate, task)


async def _run(session: Session, prompt: list[int], sampling: SamplingParams, limits: Limits) -> Trace:
    return (await session.run(prompt, sampling, limits))[0]


async def _cancelled(
    session: Session, prompt: list[int], sampling: SamplingParams, limits: Limits, after_s: float
) -> Trace:
    """A trace that is cancelled by its id, which its first event has."""
    cancelling: asyncio.Task[None] | None = None
    async for event in session.stream(prompt, sampling, limits):
        if isinstance(event, TraceFinished):
            return event.trace
        cancelling = cancelling or asyncio.create_task(_cancel(session, event.trace, after_s))
    raise AssertionError("the stream of a trace ended without the trace")


async def _cancel(session: Session, trace_id: str, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await session.cancel(trace_id)


def _ended(fate: str, task: "asyncio.Task[Trace]") -> Ended:
    if not task.done():
        task.cancel()
        return Ended(fate, "hung")
    if task.cancelled():
        return Ended(fate, "task cancelled")
    if error := task.exception():
        return Ended(fate, "raised", error=f"{type(error).__name__}: {error}")
    trace = task.result()
    return Ended(fate, trace.status, trace)
