"""Traces to look at: of every dialect, drawn by a scripted engine, and one that is made to be hard to show."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from benchmarks.grammars import CHAINS, tokenizer_of
from parallel_reason import Limits, SamplingParams, Session, Trace
from parallel_reason.dialects import bind, find
from parallel_reason.trace import Fork, Span, Thread, tally
from parallel_reason.viewer import TokenTexts
from tests.chains import chain_engine

DIALECTS = sorted(CHAINS)
OWNED = "document.title='owned'"
NASTY = f'</script><script>{OWNED}</script><img src=x onerror="{OWNED}"> \u202eflip\u202c \x00 &amp;'


@cache
def tokenizer(dialect):
    return tokenizer_of([dialect])


@cache
def drawn(dialect):
    """Two problems with two samples each: of many short traces of a dialect, those with the most threads."""
    with ThreadPoolExecutor() as beside:  # a thread that drives a browser has a running loop
        found = [beside.submit(asyncio.run, _one(dialect, seed)).result() for seed in range(40)]
    kept = sorted(found, key=lambda trace: -len(trace.threads) if len(trace.threads) < 40 else 0)[:4]
    return [
        trace.model_copy(update={"task": f"{dialect} problem {number // 2}", "sample": number % 2})
        for number, trace in enumerate(kept)
    ]


async def _one(dialect, seed):
    words = tokenizer(dialect)
    session = Session(chain_engine(words, dialect, seed=seed, spoil=0.01), bind(dialect, words))
    (trace,) = await session.run(["a"], SamplingParams(seed=0), Limits(tokens_per_thread=60, tokens=600, depth=2))
    return trace


def texts_of(dialect):
    return TokenTexts(tokenizer(dialect), find(dialect).tags.values())


def nasty(text=NASTY, **fields):
    """A trace in which every text that a model or a user can write is ``text``."""
    odd = Span(ids=[2, 3], origin="sampled", logprobs=[float("-inf"), float("nan")])
    spans, fork = [Span(ids=[1], origin="prompt"), odd], Fork(at=2, join_rule="graft", children=[1])
    root = Thread(label="0", status="failed", stop_reason=text, text=text, spans=spans, forks=[fork])
    child = Thread(label="0.0", parent=0, status="cancelled", stop_reason=text, text=text)
    threads = [root, child]
    given = {"prompt": text, "task": text, "answer": text, "errors": [text], "model": text, "dialect": text, "id": text}
    return Trace(**{**given, **fields}, threads=threads, ledger=tally(threads))


def write(path, traces):
    path.write_text("".join(trace.to_json() + "\n" for trace in traces))
    return path
