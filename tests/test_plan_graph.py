"""Plan-over-Graph's figures against brute force over every set of rules."""

import asyncio
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plans import run_virtual
from parallel_reason import InputError
from parallel_reason.plans import Problem, Rule, Subtask, TaskGraph, best, graph_calls_in, rates, run_plan, score
from parallel_reason.plans.graph_scores import GraphRates, PlanScore

# The worked example of template/planner/abstask_plan.py of zsq259/Plan-over-Graph at 61da430, with a cost of 1 a rule.
EXAMPLE = {
    "id": 0,
    "node_count": 6,
    "rules": [
        {"id": 0, "source": ["N1"], "target": ["N2"], "time": 3, "cost": 1},
        {"id": 1, "source": ["N6"], "target": ["N3"], "time": 4, "cost": 1},
        {"id": 2, "source": ["N2", "N3"], "target": ["N4"], "time": 2, "cost": 1},
        {"id": 3, "source": ["N4"], "target": ["N5"], "time": 1, "cost": 1},
        {"id": 4, "source": ["N2"], "target": ["N5"], "time": 5, "cost": 1},
    ],
    "initial_source": ["N1", "N6"],
    "target": "N5",
}
GRAPH = TaskGraph.from_question(EXAMPLE)
PLAN = [
    Subtask(name="Subtask1", source="N1", target="N2"),
    Subtask(name="Subtask2", source="N6", target="N3"),
    Subtask(name="Subtask3", source=["N3", "N2"], target="N4", dependencies=["Subtask1", "Subtask2"]),
    Subtask(name="Subtask4", source="N4", target="N5", dependencies=["Subtask3"]),
]
DIRECT = [PLAN[0], Subtask(name="Last", source="N2", target="N5", dependencies="Subtask1")]


def test_the_published_example_is_optimal():
    assert score(GRAPH, PLAN) == PlanScore(7, 4)
    assert score(GRAPH, DIRECT) == PlanScore(8, 2)
    assert best(GRAPH) == (7, 4)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ([], "the plan is empty"),
        (PLAN[:3], "N5 is never made"),
        (PLAN[1:2] + DIRECT[1:], "the dependencies have a cycle or an unknown name"),
        ([Subtask(name="a", source="N2", target="N5"), *DIRECT], "a needs N2, which is not there"),
        ([Subtask(name="a", source="N1", target="N5")], "a follows no rule"),
        ([PLAN[0], PLAN[0]], "the dependencies have a cycle or an unknown name"),
        ([Subtask(name="a", source="N1", target="N2", dependencies="a")], "the dependencies have a cycle"),
    ],
)
def test_a_plan_that_breaks_a_rule_fails_and_says_why(plan, reason):
    result = score(GRAPH, plan)
    assert not result.success
    assert result.reason.startswith(reason)


@st.composite
def task_graphs(draw):
    """Rules over nodes 0 to 5, from lower to higher ones, with several sources and targets."""
    rules = []
    names = [f"N{k}" for k in range(6)]
    for _ in range(draw(st.integers(3, 8))):
        split = draw(st.integers(1, 5))
        source = draw(st.lists(st.sampled_from(names[:split]), min_size=1, max_size=3, unique=True))
        target = draw(st.lists(st.sampled_from(names[split:]), min_size=1, max_size=2, unique=True))
        rules.append(Rule(source=source, target=target, time=draw(st.integers(0, 4)), cost=draw(st.integers(0, 4))))
    return TaskGraph(rules=rules, initial_source=["N0", *draw(st.sampled_from([[], ["N1"]]))], target="N5")


def brute(graph):
    """Least time and, within it, least cost over every set of rules; None if no set makes the target."""
    found = []
    for size in range(len(graph.rules) + 1):
        for chosen in combinations(graph.rules, size):
            times = dict.fromkeys(graph.initial_source, 0)
            for _ in chosen:  # relaxed until nothing can change
                for rule in chosen:
                    if all(name in times for name in rule.source):
                        end = rule.time + max(times[name] for name in rule.source)
                        times |= {name: min(end, times.get(name, end)) for name in rule.target}
            if graph.target in times:
                found.append((times[graph.target], sum(rule.cost for rule in chosen)))
    return min(found, default=None)


@pytest.mark.parametrize("order", permutations(range(5)))
def test_a_node_that_two_use_is_made_in_time_for_both(order):
    """N1 is made fast for 5 or slowly for 1; N2 takes 2 from there and N3 nothing, so only the fast way is in time."""
    rules = [
        Rule(source="N0", target="N1", time=1, cost=5),
        Rule(source="N0", target="N1", time=3, cost=1),
        Rule(source="N1", target="N2", time=2),
        Rule(source="N1", target="N3", time=0),
        Rule(source=["N2", "N3"], target="N4"),
    ]
    assert best(TaskGraph(rules=[rules[k] for k in order], initial_source="N0", target="N4")) == (3, 5)


@settings(max_examples=200)
@given(task_graphs())
def test_the_best_time_and_cost_are_those_of_brute_force(graph):
    expected = brute(graph)
    if expected is None:
        with pytest.raises(InputError, match="the rules cannot make 'N5' from N0"):
            best(graph)
    else:
        assert best(graph) == expected


@given(task_graphs(), st.data())
def test_a_plan_scores_as_its_run_on_a_clock_does(graph, data):
    """A plan whose dependencies are exactly the makers of its sources, one maker each, is run; its time is measured."""
    made, plan = {}, []
    for rule in sorted(graph.rules, key=lambda rule: max(rule.source)):
        free = all(name in made or name in graph.initial_source for name in rule.source)
        if free and not {*made, *graph.initial_source} & {*rule.target} and data.draw(st.booleans()):
            needs = tuple({made[name] for name in rule.source if name in made})
            name = f"S{len(plan)}"
            plan.append(Subtask(name=name, source=rule.source, target=rule.target, dependencies=needs))
            made |= dict.fromkeys(rule.target, name)
    ends = {}

    async def perform(subtask, results):
        assert set(results) == set(subtask.dependencies)
        await asyncio.sleep(graph.rule_of(subtask).time)
        ends[subtask.name] = asyncio.get_running_loop().time()
        return subtask.target

    written = "[" + ",".join(each.model_dump_json() for each in data.draw(st.permutations(plan))) + "]"
    result = run_virtual(run_plan(graph_calls_in(written, perform, graph)))
    assert result.ok
    scored = score(graph, plan)
    assert scored.success == ("N5" in made)
    if scored.success:
        assert scored.time == ends[made["N5"]]
        assert scored.cost == sum(graph.rule_of(each).cost for each in plan)


@given(st.permutations(PLAN))
def test_the_order_in_which_a_plan_is_written_does_not_matter(plan):
    assert score(GRAPH, plan) == PlanScore(7, 4)


def test_subtasks_outside_the_rules_do_not_run():
    async def items():
        text = '[{"name": "S", "source": ["N1"], "target": ["N4"]}]'
        return [item async for item in graph_calls_in(text, print, GRAPH)]

    assert asyncio.run(items()) == [Problem("S follows no rule of the graph: ('N1',) to ('N4',)")]


def test_rates_are_the_published_ones():
    """As src/new_analyze.py counts them: a plan is optimal, feasible or failed; ratios are over those that succeed."""
    scores = [score(GRAPH, PLAN), score(GRAPH, DIRECT), score(GRAPH, PLAN[:2])]
    assert rates(scores, [(7, 4)] * 3) == GraphRates(3, 2 / 3, 1 / 3, 1 / 3, (1 + 8 / 7) / 2, (1 + 2 / 4) / 2)
    assert rates(scores[2:], [(7, 4)]) == GraphRates(1, 0, 0, 0, None, None)
    with pytest.raises(InputError, match="1 plans have 0 best"):
        rates(scores[:1], [])


@pytest.mark.parametrize(
    "broken", [{}, {"rules": 1}, EXAMPLE | {"rules": [{"source": ["N1"]}]}, EXAMPLE | {"target": 3}]
)
def test_a_question_that_is_no_graph_is_refused(broken):
    with pytest.raises(InputError, match="no graph of rules"):
        TaskGraph.from_question(broken)


def test_rules_with_a_cycle_are_refused():
    rules = [Rule(source=a, target=b) for a, b in permutations(["N1", "N2"])]
    with pytest.raises(InputError, match="the rules have a cycle through 'N"):
        best(TaskGraph(rules=rules, initial_source="N0", target="N2"))
