"""What a fleet costs, what a second engine brings, and how long a death is felt.

    python -m benchmarks.fleet --part one          # a fleet of one engine over the bare session
    python -m benchmarks.fleet --part two          # two engines over one, each kept to a core of its own
    python -m benchmarks.fleet --part death        # a process is killed: seconds to the next token, tokens lost

The embedded model, sampled at temperature 1. Tokens a second count those that were sampled for traces that came back.
"""

import os
import signal
import statistics
import time
from typing import Annotated, Literal

import typer
from rich.console import Console

from benchmarks.local_ray import ray_cluster
from benchmarks.report import Report, median_range, ratio
from parallel_reason import Fleet, ParallelLLM, SamplingParams, Trace
from parallel_reason.fleet.session import FleetSession
from parallel_reason.tasks.countdown import held_out

Figures = list[tuple[str, str]]


def speed(llm: ParallelLLM, traces: int, seed: int) -> float:
    """Sampled tokens a second over ``traces`` prompts."""
    prompts = [str(problem) for problem in held_out(traces)]
    started = time.perf_counter()
    done = llm.generate(prompts, SamplingParams(temperature=1.0, seed=seed))
    return sum(trace.ledger.sampled_tokens for trace in done) / (time.perf_counter() - started)


def alternating(one: ParallelLLM, other: ParallelLLM, traces: int, runs: int) -> tuple[list[float], list[float]]:
    """Speeds of two, run in turn, there and back; the first run of each does not count."""
    speeds: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 1):
        order = [(one, speeds[0]), (other, speeds[1])]
        for llm, found in order[:: (-1) ** run]:
            found.append(speed(llm, traces, run))
    return speeds[0][1:], speeds[1][1:]


def one_over_bare(engine: str, traces: int, runs: int) -> Figures:
    """A fleet of one over the bare session."""
    fleet = Fleet(engines=1, cpus_per_engine=0.5)
    with ParallelLLM(engine=engine) as bare, ParallelLLM(engine=engine, fleet=fleet) as one:
        in_fleet, alone = alternating(one, bare, traces, runs)
    return [
        ("bare session, tokens/s", median_range(alone)),
        ("fleet of one, tokens/s", median_range(in_fleet)),
        ("fleet of one over bare session", ratio(in_fleet, alone)),
    ]


def two_over_one(engine: str, traces: int, runs: int) -> Figures:
    """Two engines over one, each on a core of its own; whoever does not run is idle."""
    pinned = Fleet(engines=1, cpus_per_engine=1.0, pin_cores=True)
    double = pinned.model_copy(update={"engines": 2})
    with ParallelLLM(engine=engine, fleet=pinned) as single, ParallelLLM(engine=engine, fleet=double) as two:
        both, alone = alternating(two, single, traces, runs)
    return [
        ("one engine, tokens/s", median_range(alone)),
        ("two engines, tokens/s", median_range(both)),
        ("two over one", ratio(both, alone)),
    ]


def death(engine: str, traces: int, runs: int) -> Figures:
    """One of two engines is killed when a third of the traces is back; then the only engine of a fleet."""
    figures = []
    for engines in (2, 1):
        firsts, serving, again, whole = [], [], [], True
        fleet = Fleet(engines=engines, cpus_per_engine=0.5, check_s=0.5)
        with ParallelLLM(engine=engine, fleet=fleet) as llm:
            for run in range(runs):
                killed = KilledOnce(llm, after=traces // 3)
                prompts = [str(problem) for problem in held_out(traces)]
                done = llm.generate(prompts, SamplingParams(temperature=1.0, seed=run), on_trace=killed)
                serving.append(killed.until_all_serve())
                rerun = [trace for trace in done if trace.id in killed.lost and (trace.started_at or 0) > killed.at]
                firsts += [min(map(first_token_at, rerun)) - killed.at] if rerun else []
                again.append(tokens(rerun) / tokens(done))
                whole &= len({trace.id for trace in done}) == traces
                whole &= {trace.status for trace in done} == {"finished"}
        name = f"{engines} engines" if engines > 1 else "1 engine"
        figures += [
            (f"{name}: kill to the first new token of a lost trace, s", median_range(firsts)),
            (f"{name}: kill to the engine serving again, s", median_range(serving)),
            (f"{name}: tokens computed again, at most", f"{statistics.mean(again):.1%}"),
            (f"{name}: every prompt one finished trace", "yes" if whole else "NO"),
        ]
    return figures


class KilledOnce:
    """An ``on_trace`` that kills the process of engine 0 once so many traces are back.

    Attributes:
        at: Unix time of the kill.
        lost: ids of the traces that were on it; those that were on their way back came from it all the same.
    """

    def __init__(self, llm: ParallelLLM, after: int) -> None:
        """``llm`` is over a fleet."""
        assert isinstance(llm.session, FleetSession)
        self._pool = llm.session.engine.pool
        self._left = after
        self.at = 0.0
        self.lost: set[str] = set()

    def __call__(self, trace: Trace) -> None:
        """A trace is back."""
        self._left -= 1
        if self._left == 0:
            self.lost = set(self._pool.traces_on(0))
            self.at = time.time()
            os.kill(self._pool.actors.members[0].pid, signal.SIGKILL)

    def until_all_serve(self) -> float:
        """Seconds from the kill until every engine serves; waits for it."""
        while len(self._pool.actors.serving) < len(self._pool.actors.members):
            time.sleep(0.02)
        return time.time() - self.at


def first_token_at(trace: Trace) -> float:
    """Unix time of its first sampled token."""
    assert trace.started_at is not None
    return trace.started_at + (trace.ledger.first_token_s or trace.ledger.wall_s)


def tokens(traces: list[Trace]) -> int:
    """Sampled in all of them."""
    return sum(trace.ledger.sampled_tokens for trace in traces)


def main(
    part: Annotated[Literal["one", "two", "death"], typer.Option(help="What to measure.")] = "one",
    engine: Annotated[str, typer.Option(help="What decodes: vllm or torch.")] = "vllm",
    traces: int = 32,
    runs: int = 5,
    markdown: bool = False,
) -> None:
    """Measure one part on a Ray of its own; nothing else should run on this machine."""
    with ray_cluster(num_cpus=4):
        figures = {"one": one_over_bare, "two": two_over_one, "death": death}[part](engine, traces, runs)
    rows = [[name, value] for name, value in figures]
    Report(Console(), markdown).table(
        f"{part}: {engine}, {traces} traces, {runs} runs", ["", "median [least, most]"], rows
    )


if __name__ == "__main__":
    typer.run(main)
