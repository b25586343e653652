"""Traces of a given shape: a dialect that forks by count, on an engine whose requests end by count.

A model with random weights writes no tags, so both stop by count; the rest is as ever: the requests, joins and limits
of a run, and what the engine does for them.
"""

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from benchmarks.models import FIRST_ID, RandomModel, random_ids
from benchmarks.report import Report, median_range, ratio
from parallel_reason import Session, Trace, aggregate
from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    ChildSpec,
    Continuation,
    Continue,
    Dialect,
    Finish,
    Insert,
    Rewrite,
    StartFork,
    Stops,
    ThreadView,
)
from parallel_reason.engines import start
from parallel_reason.engines.base import Engine, EngineRequest, OnTokens, RequestOutput
from parallel_reason.trace import JoinRule

FORKS, CHILDREN, CHILD_TOKENS = 3, 6, 200  # of a trace, of a fork, sampled by a child
ROOT_TOKENS = 40  # sampled by a root before each fork, and after the last join
SAMPLED = (FORKS + 1) * ROOT_TOKENS + FORKS * CHILDREN * CHILD_TOKENS  # by a whole trace
PROMPT = 64
HEADER, NEWLINE, CONCLUSION = (390, 391), Insert((392,)), Insert((393, 392))  # as many tokens as Multiverse's


@dataclass(frozen=True)
class Shape:
    """A dialect whose root forks wherever it stops, ``forks`` times; a child ends where it stops."""

    name: ClassVar[str] = "shape"
    tags: ClassVar[dict[str, str]] = {}
    shares_prefix: ClassVar[bool] = True
    joins_on_first: ClassVar[bool] = False
    join_rule: JoinRule
    forks: int

    def stops(self, depth: int) -> Stops:
        """None: requests end by count."""
        return Stops()

    def step(self, view: ThreadView) -> Action:
        """Fork, until it has forked often enough."""
        if view.stopped_at == "start":
            return Continue()
        if view.depth or view.joins == self.forks:
            return Finish()
        return StartFork(tuple(ChildSpec((Insert((*HEADER, FIRST_ID + k)),)) for k in range(CHILDREN)))

    def returns(self, child: ChildResult) -> bool:
        """Every child does."""
        return True

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """Close each child with a newline; relinearised, copy all but the first, which the parent continues."""
        close = Rewrite(inserts=(NEWLINE,))
        if self.join_rule == "graft":
            return Continuation((CONCLUSION,), (close,) * len(children))
        copies = [Insert((*child.header[0].ids, *child.ids, *NEWLINE.ids), copied=True) for child in children[1:]]
        return Continuation((*copies, CONCLUSION), (close,) + (Rewrite(),) * (len(children) - 1))

    def answer(self, view: ThreadView) -> str | None:
        """None: its tokens say nothing."""
        return None


class CountingEngine:
    """An engine whose requests stop when they have sampled a number of tokens."""

    def __init__(self, engine: Engine, root_tokens: int) -> None:
        """``root_tokens`` are sampled by each request of a root, `CHILD_TOKENS` by one of a child."""
        self.engine = engine
        self.root_tokens = root_tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def generate(self, request: EngineRequest, on_tokens: OnTokens | None = None) -> RequestOutput:
        """Sample as many as the request's thread stops after."""
        stop = CHILD_TOKENS if "." in request.label else self.root_tokens
        output = await self.engine.generate(replace(request, max_tokens=min(stop, request.max_tokens)), on_tokens)
        if output.finish_reason == "length" and request.max_tokens > stop:
            output.finish_reason = "stop"
        return output


async def timed(engine: Engine, shape: Shape, count: int) -> tuple[float, list[Trace]]:
    """Seconds of ``count`` traces at once, each on a prompt of its own; one without forks samples as many tokens."""
    counting = CountingEngine(engine, ROOT_TOKENS if shape.forks else SAMPLED)
    session = Session(cast(Engine, counting), cast(Dialect, shape))
    assert await engine.kv_is_free()
    started = time.perf_counter()
    traces = await session.run([random_ids(PROMPT, seed) for seed in range(count)])
    seconds = time.perf_counter() - started
    assert {(trace.status, trace.ledger.sampled_tokens) for trace in traces} == {("finished", SAMPLED)}
    return seconds, traces


async def compare_joins(model: RandomModel, report: Report, count: int, runs: int) -> None:
    """The same number of sampled tokens as grafted threads, as relinearised ones, and as one thread."""
    graft, plain = [
        await start("vllm", model.folder, graft=grafts, context=8192, **model.options) for grafts in (True, False)
    ]
    ways = {
        "graft": (graft, Shape("graft", FORKS)),
        "relinearise": (plain, Shape("relinearise", FORKS)),
        "one thread": (plain, Shape("relinearise", 0)),
    }
    for engine, shape in ways.values():
        await timed(engine, shape, 2)  # warm
    taken = [{way: await timed(*how, count) for way, how in ways.items()} for _ in range(runs)]
    await graft.close()
    await plain.close()
    seconds = {way: [run[way][0] for run in taken] for way in ways}
    rows = []
    for way in ways:
        counts = aggregate(trace.ledger for trace in taken[-1][way][1])
        assert counts.prefilled_tokens is not None
        assert counts.cached_tokens is not None
        rows.append([
            way, median_range(seconds[way]), ratio(seconds["one thread"], seconds[way]),
            ratio(seconds["graft"], seconds[way]), f"{counts.acceleration_of_sums:.2f}",
            f"{counts.prefilled_tokens - counts.cached_tokens:,}", f"{counts.recomputed_tokens:,}",
        ])  # fmt: skip
    report.table(
        f"trace: {count} at once, each {FORKS} forks x {CHILDREN} children x {CHILD_TOKENS} tokens, {model.name}, "
        f"n={runs}",
        [
            "", "seconds", "one thread / it", "graft / it", "token acceleration", "context tokens computed",
            "of these, for the second time",
        ],
        rows,
    )  # fmt: skip
