"""Traces to look at: of every dialect, drawn by a scripted engine, and one that is made to be hard to show."""

import asyncio
from functools import cache

from benchmarks.grammars import CHAINS, tokenizer_of
from parallel_reason import Limits, SamplingParams, Session, Trace
from parallel_reason.dialects import bind, find
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.trace import Fork, Span, Thread, tally
from parallel_reason.viewer import TokenTexts
from tests.chains import chain_engine

DIALECTS = sorted(CHAINS)
NASTY = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> \u202eflip\u202c \x00 &amp;"


@cache
def tokenizer(dialect):
    return tokenizer_of([dialect])


@cache
def drawn(dialect):
    """Some traces of a dialect, with times, log-probs, and tokens that are taken back where the dialect does that."""
    words = tokenizer(dialect)
    engine: ScriptedEngine = chain_engine(words, dialect, seed=5, spoil=0.01)
    session = Session(engine, bind(dialect, words))
    limits = Limits(tokens_per_thread=60, tokens=600, depth=2)
    return asyncio.run(session.run(["a", "ab"], SamplingParams(n=3, seed=0), limits))


def texts_of(dialect):
    return TokenTexts(tokenizer(dialect), find(dialect).tags.values())


def nasty(text=NASTY, **fields):
    """A trace in which every text that a model or a user can write is ``text``."""
    root = Thread(
        label="0", status="failed", stop_reason=text, text=text, malformed=[],
        spans=[Span(ids=[1], origin="prompt"), Span(ids=[2, 3], origin="sampled", logprobs=[float("-inf"), float("nan")])],
        forks=[Fork(at=2, join_rule="graft", children=[1])],
    )  # fmt: skip
    child = Thread(label="0.0", parent=0, status="cancelled", stop_reason=text, text=text)
    threads = [root, child]
    given = {"prompt": text, "task": text, "answer": text, "errors": [text], "model": text, "dialect": text, "id": text}
    return Trace(**{**given, **fields}, threads=threads, ledger=tally(threads))


def write(path, traces):
    path.write_text("".join(trace.to_json() + "\n" for trace in traces))
    return path
