"""A dialect of another package that inserts nothing: no thread fails, and the layout is that of the sampled tokens."""

import asyncio

import pytest

from benchmarks.grammars import tokenizer
from parallel_reason import Session, layout
from parallel_reason.dialects.base import ChildSpec, Continuation, Continue, Finish, Insert, Rewrite, StartFork
from parallel_reason.dialects.tagged import Tagged
from parallel_reason.engines.scripted import ScriptedEngine

TOKENS = tokenizer(["<try>", "</try>"])
TEXTS = {"0": ["a<try>", "b<eos>"], "0.0": ["x</try>"], "0.1": ["y</try>"]}
ROWS = {"message": "pa<try>b<eos>", "relinearise": "pa<try>x</try>b<eos>", "graft": "pa<try>x</try>y</try>bb<eos>"}


class Silent(Tagged):
    name = "silent"
    tags = {"try": "<try>", "try_end": "</try>"}  # noqa: RUF012
    rule: str = "message"
    headers: tuple = ((), ())
    inserts: tuple = ()

    @classmethod
    def joins_by(cls, **options):
        return cls.rule

    def stops(self, depth):
        return self.stops_at("try_end" if depth else "try")

    def step(self, view):
        if view.stopped_at == "start":
            return Rewrite(0, (Insert(()),)) if view.depth else Continue()
        if view.depth or view.stopped_at == "eos":
            return Finish()
        return StartFork(tuple(ChildSpec(header) for header in self.headers), inserts=(Insert((), shift=-1),))

    def join(self, view, children):
        return Continuation(self.inserts, tuple(Rewrite(0, (Insert(()),)) for _ in children))


@pytest.mark.parametrize("headers", [((), ()), ((Insert(()),), (Insert(()), Insert((), shift=-1)))])
@pytest.mark.parametrize(
    ("rule", "inserts"),
    [
        ("message", ()),
        ("message", (Insert(()),)),
        ("relinearise", ()),
        ("relinearise", (Insert((), copied=True),)),
        ("graft", (Insert(()), Insert(tuple(TOKENS.encode("b"))), Insert(()))),  # a graft inserts one token at least
    ],
)
def test_a_dialect_that_inserts_nothing_runs_to_its_end(rule, headers, inserts):
    kind = type("Kind", (Silent,), {"rule": rule, "headers": headers, "inserts": inserts})
    session = Session(ScriptedEngine.from_texts(TOKENS, TEXTS), kind.bind(TOKENS))
    (trace,) = asyncio.run(session.run(TOKENS.encode("p")))
    assert trace.errors == []
    assert [(thread.status, thread.text) for thread in trace.threads] == [
        ("finished", "a<try>b"),
        ("finished", "x</try>"),
        ("finished", "y</try>"),
    ]
    row = layout(trace)
    seen = row.mask()[-1].nonzero()[0]  # what the parent's last token sees
    assert TOKENS.decode(row.ids[seen].tolist()) == ROWS[rule]
