"""The dispatcher at a scale that no test machine has: simulated engines, real lengths of traces.

    python -m benchmarks.dispatch --engines 256 --traces 100000

Every engine has slots, and decodes one token of each of its traces in a unit of time. How long a trace takes is its
critical path; the lengths are drawn from measured ones: those of a trace file (``--lengths runs/countdown.jsonl``), or
of the embedded model on 128 problems, sampled now. ``long tail`` spreads the same lengths by a log-normal of sigma 1,
made up. ``1 in 100 engines dies`` takes each of these away once, for 2,000 units.
"""

import heapq
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.report import Report
from parallel_reason import Limits, ParallelLLM, SamplingParams, read_traces
from parallel_reason.fleet.dispatch import Attempt, Dispatcher
from parallel_reason.tasks.countdown import held_out

AWAY = 2000.0  # units until an engine that died serves again


@dataclass(frozen=True)
class Outcome:
    """Of one simulation.

    Attributes:
        makespan: units until the last trace ended.
        ideal: the least that any schedule takes: all work on all slots without a gap, or the longest trace.
        waited: until the last trace was given to an engine; from then on slots are idle for want of work.
        idle: share of slots that were free until then, those of engines that were away too.
        again: share of the work that was done twice.
        cpu_s: seconds that the dispatcher took, for all traces.
    """

    makespan: float
    ideal: float
    waited: float
    idle: float
    again: float
    cpu_s: float


def simulate(lengths: list[float], engines: int, slots: int, deaths: list[tuple[float, int]]) -> Outcome:
    """Run traces of these lengths, given in the order in which they are submitted.

    Args:
        deaths: when which engine dies.
    """
    dispatcher = Dispatcher(engines, slots)
    events: list[tuple[float, int, str, int, Attempt | None]] = []  # time, tie-breaker, kind, engine, attempt
    started: dict[Attempt, float] = {}
    spent: list[tuple[float, float, bool]] = []  # of every attempt: from, to, whether it counted
    cpu, waited, now, ticket = 0.0, 0.0, 0.0, 0

    def at(when: float, kind: str, engine: int, attempt: Attempt | None = None) -> None:
        nonlocal ticket
        ticket += 1
        heapq.heappush(events, (when, ticket, kind, engine, attempt))

    for when, engine in deaths:
        at(when, "died", engine)
    clock = time.process_time()
    for number in range(len(lengths)):
        dispatcher.submit(str(number))
    for engine in range(engines):
        dispatcher.serves(engine)
    cpu += time.process_time() - clock
    left = len(lengths)
    while left:
        clock = time.process_time()
        dealt = dispatcher.deal()
        cpu += time.process_time() - clock
        for attempt in dealt:
            started[attempt], waited = now, now
            at(now + lengths[int(attempt.trace)], "finished", attempt.engine, attempt)
        now, _, kind, engine, ended = heapq.heappop(events)
        clock = time.process_time()
        if ended is not None:
            left -= dispatcher.finished(ended)
        elif kind == "died":
            lost = [each for each in started if each.engine == engine]
            left -= len(dispatcher.died(engine))
            spent += [(started.pop(each), now, False) for each in lost]
            at(now + AWAY, "serves", engine)
        else:
            dispatcher.serves(engine)
        cpu += time.process_time() - clock
        if ended in started:
            spent.append((started.pop(ended), now, True))
    ideal = max(sum(lengths) / (engines * slots), max(lengths))
    busy = sum(min(end, waited) - start for start, end, _ in spent if start < waited)
    again = sum(end - start for start, end, counted in spent if not counted)
    idle = max(0.0, 1 - busy / (waited * engines * slots))
    return Outcome(now, ideal, waited, idle, again / sum(end - start for start, end, _ in spent), cpu)


def split_before(lengths: list[float], engines: int, slots: int) -> float:
    """Makespan where every engine gets the same number of prompts before it starts, as data-parallel scripts do."""
    ends = []
    for engine in range(engines):
        free = [0.0] * slots
        for length in lengths[engine::engines]:
            heapq.heappush(free, heapq.heappop(free) + length)
        ends.append(max(free))
    return max(ends)


def measured(file: Path | None) -> list[float]:
    """Critical paths of traces, in tokens."""
    if file is not None:
        return [float(trace.ledger.critical_path_tokens) for trace in read_traces(file)]
    with ParallelLLM(engine="torch", limits=Limits()) as llm:
        sampled = llm.generate([str(problem) for problem in held_out(128)], SamplingParams(temperature=1.0, seed=0))
    return [float(trace.ledger.critical_path_tokens) for trace in sampled]


def main(
    engines: int = 256,
    slots: int = 16,
    traces: int = 100_000,
    lengths: Annotated[Path | None, typer.Option(help="A trace file; the embedded model if not given.")] = None,
    seed: int = 0,
    markdown: bool = False,
) -> None:
    """Simulate a fleet and report what the dispatcher costs and what it leaves idle."""
    known = measured(lengths)
    random_ = random.Random(seed)
    drawn = random_.choices(known, k=traces)
    long_tail = [length * random_.lognormvariate(0, 1) for length in drawn]
    deaths = [(random_.uniform(0, 3000), engine) for engine in random_.sample(range(engines), -(-engines // 100))]
    rows = []
    for name, work, dying in (
        ("as measured", drawn, []),
        ("long tail", long_tail, []),
        ("long tail, 1 in 100 engines dies", long_tail, deaths),
    ):
        out = simulate(work, engines, slots, dying)
        rows.append(
            [
                name,
                f"{1e6 * out.cpu_s / traces:.1f}",
                f"{out.makespan / out.ideal:.3f}",
                f"{split_before(work, engines, slots) / out.ideal:.3f}",
                f"{out.idle:.2%}",
                f"{out.again:.2%}",
            ]
        )
    print(
        "time: until the last trace ended, over the least that any schedule takes; idle: slots until the last begins\n"
        f"lengths of {len(known)} traces: median {statistics.median(known):.0f}, "
        f"most {max(known):.0f} tokens on the critical path"
    )
    Report(Console(), markdown).table(
        f"{engines} engines of {slots} traces, {traces:,} traces, seed {seed}",
        [
            "lengths",
            "CPU, us a trace",
            "time over ideal",
            "split before, over ideal",
            "idle",
            "done twice",
        ],
        rows,
    )


if __name__ == "__main__":
    typer.run(main)
