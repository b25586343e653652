"""Programs on an engine that writes given texts."""

import asyncio

from parallel_reason import Session
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine
from tests.scripted import WORDS, ids, session

TEXTS = {"0": ["ab", "cd<eos>"], "0.0": ["aa", "x<eos>"], "0.1": ["b<eos>"], "0.2": ["ccc", "d", "e<eos>"]}


def run(program, texts=TEXTS, limits=None, over=None, sampling=None, **options):
    """The trace of a program; all KV of the engine is free after it."""

    async def traced():
        own = over or session(texts, "none", **options)
        [trace] = await own.run_program(program, "Q", sampling, limits)
        assert await own.engine.kv_is_free()
        return trace

    return asyncio.run(traced())


def endless(delay_s=0.0, **options):
    """A session whose threads write ``a`` for ever."""
    engine = ScriptedEngine(WORDS, lambda request, sampled: ids("a"), delay_s=lambda request: delay_s, **options)
    return Session(engine, bind("none", WORDS))
