"""The shortest real fleet: two engines on a local Ray, one of them killed. `make check-fleet` breaks all the rest."""

from benchmarks.local_ray import ray_cluster
from parallel_reason import Fleet, Limits, ParallelLLM, SamplingParams
from parallel_reason.tasks.countdown import held_out
from tests.fleets import After, kill, members, restarts, tokens

PROMPTS = [str(problem) for problem in held_out(6)]
LIMITS = Limits(children=2)
SAMPLING = SamplingParams(temperature=1.0, n=2, seed=5)


def test_a_killed_engine_loses_no_trace_and_changes_none():
    with ParallelLLM(engine="torch", limits=LIMITS) as one:
        expected = tokens(one.generate(PROMPTS, SAMPLING))
    settings = Fleet(engines=2, cpus_per_engine=0.5, traces_per_engine=4, check_s=0.5)
    with ray_cluster(num_cpus=2), ParallelLLM(engine="torch", fleet=settings, limits=LIMITS) as fleet:
        seen = After(2, lambda: kill(members(fleet)[0].pid))
        traces = fleet.generate(PROMPTS, SAMPLING, on_trace=seen)
        assert restarts(fleet) == 1
        assert tokens(traces) == expected
        assert {trace.status for trace in traces} == {"finished"}
        assert sorted(trace.id for trace in seen.seen) == sorted({trace.id for trace in traces})
        assert fleet.kv_is_free()
