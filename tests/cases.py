"""Every dialect as a case, and traces of it that run at once on a model of `grammars`."""

from collections import Counter

from benchmarks.grammars import PROMPTS
from parallel_reason import Limits, SamplingParams, Session
from parallel_reason.dialects import bind

WILD = Limits(depth=3, children=6, forks=12, tokens=900, tokens_per_thread=60)
CASES = {
    "spawn_join": {}, "spawn_join, message alone": {"prefix": "message"}, "spawn_join, first": {"join_on": "first"},
    "apr": {}, "multiverse": {}, "npr": {}, "threadweaver": {}, "parallel_r1, seen": {"view": "seen", "paths": 3},
    "parallel_r1, unseen": {}, "parathinker": {"paths": 3}, "ssft": {"paths": 3}, "dc_cot": {}, "async_think": {},
}  # fmt: skip
GRAFT = ["multiverse", "npr", "parallel_r1, unseen", "parathinker"]
NO_GRAFT = [case for case in CASES if case not in GRAFT]


def dialect_of(case):
    return case.split(",")[0]


def session_of(llm, case, engine=None):
    """A session of a case over a model's engine, or one that wraps it; and the ids of its prompt."""
    tokenizer = llm.engine.tokenizer
    dialect = bind(dialect_of(case), tokenizer, **CASES[case])
    return Session(engine or llm.engine, dialect), tokenizer.encode(PROMPTS.get(dialect_of(case), "ab"))


def many(llm, case, count, engine=None):
    """Traces that run at once, so that forks of one meet the batches and the cache of the others."""
    session, ids = session_of(llm, case, engine)
    return llm.run_coroutine(session.run(ids, SamplingParams(temperature=1.0, seed=3, n=count), WILD))


def seen_in(traces):
    """How many forks, children below children, forks after a join, and places where something was taken back."""
    seen = Counter(forks=0, nested=0, again=0, taken_back=0, joined=0)
    for thread in (thread for trace in traces for thread in trace.threads):
        seen["forks"] += len(thread.forks)
        seen["nested"] += thread.depth > 1
        seen["again"] += len(thread.forks) > 1
        seen["joined"] += any(span.origin == "sampled" for fork in thread.forks for span in thread.spans[fork.at :])
        seen["taken_back"] += sum(span.taken_back > 0 for span in thread.spans)
    return seen
