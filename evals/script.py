"""Traces of a forced shape: a dialect that forks by count, and an engine whose requests end by count.

A model with random weights writes no tags, so who stops where is told; all else is as ever: the controller's requests,
joins and bounds, and the engine's work for them.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from evals.rig import GREEDY, SMALL, Desk, middle, over, words
from parallel_reason import Limits, Trace
from parallel_reason.controller import Run
from parallel_reason.dialects.base import Act, Amend, Child, End, Glue, GoOn, Join, Returned, Split, Stops, View
from parallel_reason.engines.base import Decode, Decoded, Engine, OnTokens
from parallel_reason.trace import JoinRule

FORKS, CHILDREN, CHILD = 3, 6, 200  # of a trace, of a fork, and tokens that a child samples
ROOT = 40  # tokens that a root samples before each fork, and after the last join
SAMPLED = (FORKS + 1) * ROOT + FORKS * CHILDREN * CHILD  # by a whole trace
PROMPT = 64
HEADER, NEWLINE, CONCLUSION = (390, 391), Glue((392,)), Glue((393, 392))  # as many tokens as Multiverse's


@dataclass(frozen=True)
class Script:
    """The root forks wherever it stops, ``forks`` times; a child ends where it stops."""

    name: ClassVar[str] = "scripted"
    shares_prefix: ClassVar[bool] = True
    joins_on_first: ClassVar[bool] = False
    join_rule: JoinRule
    forks: int

    def stops(self, depth: int) -> Stops:
        """None of its own."""
        return Stops()

    def step(self, view: View) -> Act:
        """Fork, until it has forked often enough."""
        if view.ended == "start":
            return GoOn()
        if view.depth or view.joins == self.forks:
            return End()
        return Split(tuple(Child((Glue((*HEADER, 400 + k)),)) for k in range(CHILDREN)))

    def returns(self, child: Returned) -> bool:
        """Every child does."""
        return True

    def join(self, view: View, children: list[Returned]) -> Join:
        """A newline after every child, and the start of a conclusion; all but the first once more if relinearised."""
        newline = Amend(glue=(NEWLINE,))
        if self.join_rule == "graft":
            return Join((CONCLUSION,), (newline,) * len(children))
        copies = [Glue((*child.header[0].ids, *child.ids, *NEWLINE.ids), copied=True) for child in children[1:]]
        return Join((*copies, CONCLUSION), (newline,))


class Paced:
    """An engine whose requests stop when they have sampled what is due."""

    def __init__(self, engine: Engine, root: int, child: int) -> None:
        """``root`` and ``child`` are tokens of one request of theirs."""
        self.engine = engine
        self.root = root
        self.child = child

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def generate(self, request: Decode, on_tokens: OnTokens | None = None) -> Decoded:
        """Decode what is due; the controller's names of requests say whose they are."""
        label = request.id.split("/")[2]
        due = self.child if "." in label else self.root
        decoded = await self.engine.generate(replace(request, max_tokens=min(due, request.max_tokens)), on_tokens)
        if decoded.reason == "length" and request.max_tokens > due:
            decoded.reason = "stop"
        return decoded


async def made(engine: Engine, script: Script, count: int) -> tuple[float, list[Trace]]:
    """Seconds, and traces that ran at once, each after ids of its own; one without forks samples as many tokens."""
    paced: Any = Paced(engine, ROOT if script.forks else SAMPLED, CHILD)
    runs: list[Any] = [Run(paced, script, GREEDY, Limits()) for _ in range(count)]  # type: ignore[arg-type]
    assert await engine.kv_is_free()
    begun = time.perf_counter()
    traces = await asyncio.gather(*(run.trace("", words(PROMPT, seed)) for seed, run in enumerate(runs)))
    seconds = time.perf_counter() - begun
    assert {(trace.status, trace.ledger.sampled_tokens) for trace in traces} == {("finished", SAMPLED)}
    return seconds, traces


async def trace(desk: Desk, count: int, runs: int) -> None:
    """The same number of tokens, sampled in three ways."""
    graft, plain = [await desk.start(SMALL, grafts, context=8192, kv_cache_gib=2) for grafts in (True, False)]
    ways = {
        "graft": (graft, Script("graft", FORKS)),
        "relinearise": (plain, Script("relinearise", FORKS)),
        "one thread": (plain, Script("relinearise", 0)),
    }
    for engine, script in ways.values():
        await made(engine, script, 2)  # warm
    taken = [{way: await made(*how, count) for way, how in ways.items()} for _ in range(runs)]
    await graft.close()
    await plain.close()
    seconds = {way: [run[way][0] for run in taken] for way in ways}
    rows = []
    for way in ways:
        counts = [trace.ledger for trace in taken[-1][way][1]]
        rows.append([
            way, middle(seconds[way]), over(seconds["one thread"], seconds[way]), over(seconds["graft"], seconds[way]),
            f"{sum(c.sampled_tokens for c in counts) / sum(c.critical_path_tokens for c in counts):.2f}",
            f"{sum(c.prefilled_tokens - c.cached_tokens for c in counts):,}",
            f"{sum(c.recomputed_tokens for c in counts):,}",
        ])  # fmt: skip
    desk.show(
        f"trace: {count} at once, each {FORKS} forks x {CHILDREN} children x {CHILD} tokens, {SMALL}, n={runs}",
        [
            "", "seconds", "one thread / it", "graft / it", "token acceleration", "context tokens computed",
            "of these, for the second time",
        ],
        rows,
    )  # fmt: skip
