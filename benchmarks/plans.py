"""Plans: how close the critical path of a run is to the optimum, on random graphs of calls with unequal durations.

``python -m benchmarks.plans [--graphs 1000] [--seed 0]``. Calls sleep on a virtual clock, so times are exact and
nothing is waited for. A planner writes the calls while they run; ``published`` is the rule of LLMCompiler's own code,
which looks for ready calls only when the planner's next one comes.
"""

import argparse
import asyncio
import random
import selectors
import statistics
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from parallel_reason.plans import Call, PlanLimits, PlanResult, Ref, run_plan

T = TypeVar("T")
SLOTS = (2, 4, 8)


class VirtualClock(asyncio.SelectorEventLoop):
    """An event loop that never waits: when nothing is left to do now, its time jumps to what comes next."""

    def __init__(self) -> None:
        """At time 0."""
        self.now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self.now


class _Jumping(selectors.DefaultSelector):
    """A selector in whose ``select`` the time-out is over at once."""

    def __init__(self, loop: VirtualClock) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:  # nothing is planned: only a thread can go on
            events = super().select(1.0)
            if not events:
                raise RuntimeError("everything waits, and nothing that could happen is left")
            return events
        self._loop.now += timeout
        return super().select(0)


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        return runner.run(work)


@dataclass(frozen=True)
class Node:
    """A call of a random graph: what it needs, how long it runs, and when the planner has written it, in seconds."""

    name: str
    needs: tuple[str, ...]
    duration: float
    written: float


def random_graph(rng: random.Random) -> list[Node]:
    """5 to 60 calls, of which each needs up to 3 before it; durations over two orders of magnitude."""
    size, pause = rng.randint(5, 60), rng.choice([0.0, 0.1, 1.0])
    nodes: list[Node] = []
    at = 0.0
    for k in range(size):
        at += rng.uniform(0, 2 * pause)
        needs = rng.sample(nodes, min(len(nodes), rng.choice([0, 1, 1, 2, 3])))
        nodes.append(Node(str(k + 1), tuple(node.name for node in needs), 10 ** rng.uniform(-1, 1), at))
    return nodes


def optimum(graph: Sequence[Node]) -> float:
    """The least possible time with enough slots: no call starts before it is written and its needs have ended."""
    ends: dict[str, float] = {}
    for node in graph:
        ends[node.name] = max([node.written, *(ends[need] for need in node.needs)]) + node.duration
    return max(ends.values())


def lower_bound(graph: Sequence[Node], slots: int) -> float:
    """A time that no schedule with this many slots can beat.

    The optimum without a bound; or, from any call on, when it is written and all work that is written then or later.
    """
    work, bound = 0.0, optimum(graph)
    for node in reversed(graph):
        work += node.duration
        bound = max(bound, node.written + work / slots)
    return bound


def published(graph: Sequence[Node]) -> float:
    """The time under LLMCompiler's rule: while the planner writes, calls start only as its next one comes."""
    arrivals = [node.written for node in graph]
    last = arrivals[-1]
    ends: dict[str, float] = {}
    for node in graph:
        ready = max([node.written, *(ends[need] for need in node.needs)])
        start = ready if ready >= last else min(at for at in arrivals if at >= ready)
        ends[node.name] = start + node.duration
    return max(ends.values())


async def _ran(graph: Sequence[Node], limits: PlanLimits) -> PlanResult:
    async def wait(seconds: float, *_: object) -> None:
        await asyncio.sleep(seconds)

    async def planner() -> AsyncIterator[Call]:
        loop = asyncio.get_running_loop()
        for node in graph:
            await asyncio.sleep(node.written - loop.time())
            yield Call(node.name, wait, (node.duration, *map(Ref, node.needs)), duration=node.duration)

    return await run_plan(planner(), limits=limits)


def measure(graph: Sequence[Node], slots: int | None = None) -> float:
    """Seconds that a run of the graph takes."""
    result = run_virtual(_ran(graph, PlanLimits(at_once=slots)))
    assert result.ok, result.problems
    return result.wall_s


def _line(name: str, ratios: Sequence[float]) -> str:
    return f"{name:<52} {statistics.mean(ratios):6.4f}  [{min(ratios):.4f}, {max(ratios):.4f}]"


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    graphs = [random_graph(rng) for _ in range(options.graphs)]
    print(f"{len(graphs)} random graphs of 5 to 60 calls, seed {options.seed}; mean [least, most]")
    print(_line("critical path over the optimum, enough slots", [measure(graph) / optimum(graph) for graph in graphs]))
    print(_line("the same under the published rule", [published(graph) / optimum(graph) for graph in graphs]))
    for slots in SLOTS:
        ratios = [measure(graph, slots) / lower_bound(graph, slots) for graph in graphs]
        print(_line(f"{slots} slots, over a lower bound", ratios))


if __name__ == "__main__":
    main()
