"""What `rl.result` says of solved problems."""

from types import SimpleNamespace

from parallel_reason.tasks.countdown import held_out
from rl.result import threads_by_ways
from tests.test_teacher import openings, reaches


def test_threads_are_told_apart_by_how_many_first_steps_lead_to_a_solution():
    problems = held_out(60)
    ways = [sum(reaches(left, problem.target) for left in set(openings(problem))) for problem in problems]
    samples = [
        SimpleNamespace(problem=str(problem), ledger=SimpleNamespace(threads=way))
        for problem, way in zip(problems, ways, strict=True)
        if len(set(problem.numbers)) == 4
    ]
    found = threads_by_ways(samples)
    assert found["1"] == 1
    assert found["none"] == 0
    assert 2 <= found["2-3"] <= 3
    assert found["4+"] >= 4
