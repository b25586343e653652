"""Everything that breaks under a fleet, done for real; a table of what came of it.

    python -m benchmarks.fleet_faults                      # all of it, some ten minutes on two cores
    python -m benchmarks.fleet_faults --only "node removed"

In every row the embedded model solves the same problems on two engines while something is broken. It holds if every
prompt has exactly one trace, with the tokens of a run on one engine without a fault, and no process is left.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console

from benchmarks.local_ray import node, ray_cluster
from benchmarks.report import Report
from parallel_reason import Fleet, ParallelLLM, ParallelReasonError, SamplingParams, Trace, read_traces
from parallel_reason.engines import EMBEDDED
from parallel_reason.fleet.session import FleetSession
from parallel_reason.tasks.countdown import held_out

PROMPTS = [str(problem) for problem in held_out(16)]
SAMPLING = SamplingParams(temperature=1.0, seed=7)
SETTINGS = Fleet(engines=2, cpus_per_engine=0.5, traces_per_engine=4, check_s=0.5, hung_after_s=8)
DRIVER = """
import sys
from benchmarks.fleet_faults import PROMPTS, SAMPLING, SETTINGS
from parallel_reason import ParallelLLM, TraceWriter, resume
import logging, ray
from benchmarks.local_ray import WORKERS
ray.init(address=sys.argv[2], runtime_env=WORKERS, log_to_driver=False, logging_level=logging.ERROR)
with ParallelLLM(engine="torch", fleet=SETTINGS) as llm:
    kept = resume(sys.argv[1], **llm.circumstances(SAMPLING))
    with TraceWriter(sys.argv[1]) as writer:
        llm.generate(PROMPTS, SAMPLING, skip=kept, on_trace=writer.write)
"""


@dataclass(frozen=True)
class Result:
    """What came of a fault.

    Attributes:
        whole: every prompt has one finished trace, with the tokens of a run without faults.
        seconds: from the fault to all engines serving again; None where that is not expected.
        left: processes that are left of what was killed.
        note: for people.
    """

    whole: bool
    seconds: float | None
    left: int
    note: str = ""


def ids(traces: list[Trace]) -> list[Any]:
    """All tokens of traces."""
    return [[(thread.label, [span.ids for span in thread.spans]) for thread in trace.threads] for trace in traces]


class Scene:
    """A fleet under which something is broken."""

    def __init__(self, engine: str, expected: list[Any]) -> None:
        """``expected`` are the tokens of a run on one engine."""
        self.engine = engine
        self.expected = expected
        self.broken_at = 0.0

    def under(self, fault: Callable[[ParallelLLM], list[int]], fleet: Fleet = SETTINGS, engines: int = 2) -> Result:
        """Break something when three traces are back.

        Args:
            fault: does it; the processes that must be gone in the end.
            engines: how many serve in the end.
        """
        with ParallelLLM(engine=self.engine, fleet=fleet) as llm:
            assert isinstance(llm.session, FleetSession)
            actors, seen, gone = llm.session.engine.pool.actors, [], []

            def on_trace(trace: Trace) -> None:
                seen.append(trace)
                if len(seen) == 3:
                    self.broken_at = time.monotonic()
                    gone.extend(fault(llm))

            traces = llm.generate(PROMPTS, SAMPLING, on_trace=on_trace)
            while len(actors.serving) < engines or actors.restarts == 0:
                time.sleep(0.05)
            seconds = time.monotonic() - self.broken_at
            whole = ids(traces) == self.expected and len({trace.id for trace in seen}) == len(PROMPTS) == len(seen)
            whole &= llm.kv_is_free()
        return Result(whole, seconds, sum(map(psutil.pid_exists, gone)))


def engine_processes(llm: ParallelLLM) -> list[int]:
    """The process of the actor of engine 0, and those below it."""
    assert isinstance(llm.session, FleetSession)
    actor = psutil.Process(llm.session.engine.pool.actors.members[0].pid)
    below = [each.pid for each in actor.children(recursive=True) if "resource_tracker" not in " ".join(each.cmdline())]
    return [actor.pid, *below]


def actor_killed(scene: Scene) -> Result:
    """``kill -9`` of an actor."""

    def fault(llm: ParallelLLM) -> list[int]:
        every = engine_processes(llm)
        os.kill(every[0], signal.SIGKILL)
        return every

    return scene.under(fault)


def actor_stopped(scene: Scene) -> Result:
    """An actor hangs: ``kill -STOP``."""

    def fault(llm: ParallelLLM) -> list[int]:
        every = engine_processes(llm)
        os.kill(every[0], signal.SIGSTOP)
        return every

    return scene.under(fault)


def engine_killed(scene: Scene) -> Result:
    """``kill -9`` of vLLM's own process, under a living actor."""

    def fault(llm: ParallelLLM) -> list[int]:
        every = engine_processes(llm)
        os.kill(every[1], signal.SIGKILL)
        return every

    return scene.under(fault)


def engine_stopped(scene: Scene) -> Result:
    """The process of vLLM itself hangs: ``kill -STOP``."""

    def fault(llm: ParallelLLM) -> list[int]:
        every = engine_processes(llm)
        os.kill(every[1], signal.SIGSTOP)
        return every

    return scene.under(fault)


def weights_cut_short(scene: Scene) -> Result:
    """New weights of which half is there; all engines go back to those of before."""
    said = []
    with tempfile.TemporaryDirectory() as folder, ParallelLLM(engine=scene.engine, fleet=SETTINGS) as llm:
        cut = Path(folder) / "cut"
        shutil.copytree(EMBEDDED, cut)
        file = cut / "model.safetensors"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        started = time.monotonic()
        try:
            llm.update_weights(str(cut))
        except ParallelReasonError as error:
            said.append(str(error))
        traces = llm.generate(PROMPTS, SAMPLING)
        return Result(bool(said) and ids(traces) == scene.expected, time.monotonic() - started, 0, said[0][:60])


FAULTS: dict[str, tuple[str, Callable[[Scene], Result]]] = {
    "actor killed": ("torch", actor_killed),
    "actor stopped": ("torch", actor_stopped),
    "weights cut short": ("torch", weights_cut_short),
    "actor over vLLM killed": ("vllm", actor_killed),
    "vLLM killed": ("vllm", engine_killed),
    "vLLM stopped": ("vllm", engine_stopped),
}


def node_removed(expected: list[Any]) -> Result:
    """The node of one of two engines is gone, and there is no other; the engine that is left does all."""
    fleet = SETTINGS.model_copy(update={"cpus_per_engine": 1.0, "strategy": "SPREAD"})
    with ray_cluster(num_cpus=1) as cluster:
        second = cluster.add_node(**node(num_cpus=1))
        scene = Scene("torch", expected)

        def fault(llm: ParallelLLM) -> list[int]:
            assert isinstance(llm.session, FleetSession)
            on_it = [each.pid for each in llm.session.engine.pool.actors.members if each.node == second.node_id]
            cluster.remove_node(second, allow_graceful=False)
            return on_it

        return scene.under(fault, fleet, engines=1)


def driver_killed(expected: list[Any]) -> Result:
    """The program itself is killed, and run again with ``resume``."""
    with tempfile.TemporaryDirectory() as folder, ray_cluster(num_cpus=2) as cluster:
        out = Path(folder) / "traces.jsonl"
        command = [sys.executable, "-c", DRIVER, str(out), cluster.address]
        driver = subprocess.Popen(command)
        while not out.exists() or len(out.read_bytes().splitlines()) < 4:
            time.sleep(0.02)
        workers = [each for each in psutil.process_iter(["cmdline"]) if "ray::EngineWorker" in " ".join(each.cmdline())]
        driver.kill()
        driver.wait()
        kept = [json.loads(line)["id"] for line in out.read_text().splitlines() if line.endswith("}")]
        psutil.wait_procs(workers, timeout=60)
        left = sum(each.is_running() for each in workers)
        subprocess.run(command, check=True)
        traces = sorted(read_traces(out), key=lambda trace: PROMPTS.index(trace.prompt))
        whole = ids(traces) == expected and {*kept} <= {trace.id for trace in traces}
        return Result(whole, None, left, f"{len(kept)} of {len(PROMPTS)} were kept")


OWN_CLUSTER = {"node removed": node_removed, "driver killed": driver_killed}


def main(
    only: Annotated[list[str] | None, typer.Option(help="Faults to run, by name; all if not given.")] = None,
    markdown: bool = False,
) -> None:
    """Break a fleet in every way, and say what came of it. Exits with 1 if something was lost."""
    names = only or [*FAULTS, *OWN_CLUSTER]
    if unknown := [name for name in names if name not in FAULTS and name not in OWN_CLUSTER]:
        raise SystemExit(f"error: no fault {unknown[0]!r}; there is {', '.join([*FAULTS, *OWN_CLUSTER])}")
    with ParallelLLM(engine="torch") as llm:
        expected = ids(llm.generate(PROMPTS, SAMPLING))
    results = {}
    if shared := [name for name in names if name in FAULTS]:
        with ray_cluster(num_cpus=2):
            for name in shared:
                engine, run = FAULTS[name]
                results[name] = run(Scene(engine, expected))
                print(name, results[name], flush=True)
    for name in (name for name in names if name in OWN_CLUSTER):
        results[name] = OWN_CLUSTER[name](expected)
        print(name, results[name], flush=True)
    rows = [
        [
            name,
            "yes" if found.whole else "NO",
            "-" if found.seconds is None else f"{found.seconds:.1f}",
            str(found.left),
            found.note,
        ]
        for name, found in results.items()
    ]
    columns = ["fault", "every prompt one trace, same tokens", "s until all serve", "processes left", ""]
    Report(Console(), markdown).table(f"{len(PROMPTS)} prompts on 2 engines", columns, rows)
    if not all(found.whole and not found.left for found in results.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
