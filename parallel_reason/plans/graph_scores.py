"""Plan-over-Graph's figures: whether a plan succeeds, whether it is optimal, and how its time and cost compare.

Source: zsq259/Plan-over-Graph, src/agent/module/env/tt_env.py (time and cost of a plan), src/new_analyze.py (rates and
ratios). There the best time and cost come with the data, computed by src/std.py, which keeps one plan for each node and
so may overrate the cost of the best plan; `best` here is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from parallel_reason.errors import InputError
from parallel_reason.plans.plan_over_graph import Rule, Subtask, TaskGraph


@dataclass(frozen=True)
class PlanScore:
    """A plan over a graph: when the target is there, and the sum of what its subtasks cost; None if it fails.

    Attributes:
        reason: why it fails.
    """

    time: float | None
    cost: float | None
    reason: str = ""

    @property
    def success(self) -> bool:
        """Whether the plan makes the target by the rules."""
        return self.time is not None


@dataclass(frozen=True)
class GraphRates:
    """Shares of all plans, and means over those that succeed; None if none does.

    Attributes:
        success: plans that make the target.
        optimal: plans with both the least time and the least cost among plans of that time.
        feasible: plans that succeed and are not optimal.
        time_ratio, cost_ratio: mean of what a plan takes over the best.
    """

    plans: int
    success: float
    optimal: float
    feasible: float
    time_ratio: float | None
    cost_ratio: float | None


def score(graph: TaskGraph, plan: Sequence[Subtask]) -> PlanScore:
    """A plan by the rules: every subtask follows one, and in an order of the dependencies its sources are there."""
    order = _ordered(plan)
    if not order:
        return PlanScore(
            None, None, "the dependencies have a cycle or an unknown name" if plan else "the plan is empty"
        )
    ready = dict.fromkeys(graph.initial_source, 0.0)
    cost = 0.0
    for subtask in order:
        rule = graph.rule_of(subtask)
        if rule is None:
            return PlanScore(None, None, f"{subtask.name} follows no rule")
        missing = next((name for name in subtask.source if name not in ready), None)
        if missing is not None:
            return PlanScore(None, None, f"{subtask.name} needs {missing}, which is not there")
        end = rule.time + max((ready[name] for name in subtask.source), default=0.0)
        for name in subtask.target:
            ready[name] = min(end, ready.get(name, end))
        cost += rule.cost
    if graph.target not in ready:
        return PlanScore(None, None, f"{graph.target} is never made")
    return PlanScore(ready[graph.target], cost)


def best(graph: TaskGraph) -> tuple[float, float]:
    """The least time in which the target can be made, and the least cost of doing it in that time.

    Exact, by branch and bound: a graph of some hundred rules takes a moment, a hostile one may take long.

    Raises:
        InputError: the rules have a cycle, or cannot make the target.
    """
    order = _node_order(graph)
    earliest = _earliest(graph, order)
    if graph.target not in earliest:
        raise InputError(f"the rules cannot make {graph.target!r} from {', '.join(graph.initial_source) or 'nothing'}")
    goal = earliest[graph.target]
    given = set(graph.initial_source)
    makers = {node: [rule for rule in graph.rules if node in rule.target] for node in order}
    least = [float("inf")]

    def choose(place: int, due: dict[str, float], chosen: tuple[Rule, ...], cost: float) -> None:
        """Nodes are taken from the last to the first, so that all that use a node are known when it is taken."""
        if cost >= least[0]:
            return
        while place >= 0 and (order[place] not in due or order[place] in given):
            place -= 1
        if place < 0:
            least[0] = cost
            return
        node = order[place]
        for rule in sorted(makers[node], key=lambda rule: 0 if rule in chosen else rule.cost):
            start = due[node] - rule.time
            if all(earliest.get(name, float("inf")) <= start for name in rule.source):
                needed = due | {name: min(start, due.get(name, start)) for name in rule.source}
                again = rule in chosen
                choose(place - 1, needed, chosen if again else (*chosen, rule), cost if again else cost + rule.cost)

    choose(len(order) - 1, {graph.target: goal}, (), 0.0)
    return goal, least[0]


def rates(scores: Sequence[PlanScore], bests: Sequence[tuple[float, float]]) -> GraphRates:
    """The published figures over plans and the best time and cost of their graphs.

    Raises:
        InputError: there are none, or not one best for each plan.
    """
    if not scores or len(scores) != len(bests):
        raise InputError(f"{len(scores)} plans have {len(bests)} best times and costs; give one for each, at least one")
    done = [(each, limit) for each, limit in zip(scores, bests, strict=True) if each.time is not None]
    optimal = sum((each.time, each.cost) == limit for each, limit in done)
    times = [each.time / time for each, (time, _) in done if each.time is not None and time]
    costs = [each.cost / cost for each, (_, cost) in done if each.cost is not None and cost]
    return GraphRates(
        plans=len(scores),
        success=len(done) / len(scores),
        optimal=optimal / len(scores),
        feasible=(len(done) - optimal) / len(scores),
        time_ratio=sum(times) / len(times) if times else None,
        cost_ratio=sum(costs) / len(costs) if costs else None,
    )


def _ordered(plan: Sequence[Subtask]) -> list[Subtask]:
    """In an order of the dependencies, first in first out; empty if there is none."""
    waits = {each.name: len(each.dependencies) for each in plan}
    order = [each for each in plan if not each.dependencies]
    for done in order:
        for each in plan:
            if waits[each.name]:
                waits[each.name] -= each.dependencies.count(done.name)
                if not waits[each.name]:
                    order.append(each)
    return order if len(order) == len(plan) == len(waits) else []


def _node_order(graph: TaskGraph) -> list[str]:
    """Every node after all from which it can be made."""
    nodes = dict.fromkeys(
        [*graph.initial_source, graph.target, *(n for r in graph.rules for n in (*r.source, *r.target))]
    )
    before = {node: {name for rule in graph.rules if node in rule.target for name in rule.source} for node in nodes}
    order = [node for node in nodes if not before[node]]
    for done in order:
        for node in nodes:
            if done in before[node]:
                before[node].discard(done)
                if not before[node]:
                    order.append(node)
    if len(order) < len(nodes):
        raise InputError(f"the rules have a cycle through {next(node for node in nodes if before[node])!r}")
    return order


def _earliest(graph: TaskGraph, order: Sequence[str]) -> dict[str, float]:
    """When each node can be there, of those that can."""
    times = dict.fromkeys(graph.initial_source, 0.0)
    for node in order:
        for rule in graph.rules:
            if node in rule.target and all(name in times for name in rule.source):
                end = rule.time + max((times[name] for name in rule.source), default=0.0)
                times[node] = min(end, times.get(node, end))
    return times
