"""What `rl.result` says of solved problems."""

from statistics import fmean
from types import SimpleNamespace

import pytest

from parallel_reason.tasks.countdown import held_out
from rl.result import threads_by_ways
from tests.test_teacher import openings, reaches


def test_threads_are_told_apart_by_how_many_first_steps_lead_to_a_solution():
    problems = held_out(200)
    ways = [sum(reaches(left, problem.target) for left in set(openings(problem))) for problem in problems]
    samples = [
        SimpleNamespace(problem=str(problem), ledger=SimpleNamespace(threads=way))
        for problem, way in zip(problems, ways, strict=True)
        if len(set(problem.numbers)) == 4
    ]
    kept = [sample.ledger.threads for sample in samples]
    groups = {
        "1": [way for way in kept if way == 1], "2-3": [way for way in kept if way in (2, 3)],
        "4+": [way for way in kept if way > 3], "none": [way for way in kept if not way],
    }  # fmt: skip
    assert all(groups.values())
    assert threads_by_ways(samples) == {name: pytest.approx(fmean(ways)) for name, ways in groups.items()}
