"""Plans while they run: random graphs against networkx, random arrival, failures, cancellation, bounds; no hang."""

import asyncio

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.plans import run_virtual
from parallel_reason import InputError
from parallel_reason.plans import Call, Plan, PlanLimits, PlanRun, Problem, Ref, critical_path, run_plan, text

MISSING = "99"


@st.composite
def graphs(draw, cycles=False):
    """Calls in the order in which they arrive: id to (needs, duration, seconds since the last, whether it fails)."""
    names = [str(k) for k in range(1, draw(st.integers(1, 12)) + 1)]
    arrival = draw(st.permutations(names))
    graph = {}
    for name in arrival:
        before = [*names, MISSING] if cycles else names[: int(name) - 1]
        needs = draw(st.lists(st.sampled_from(before), max_size=3, unique=True)) if before else []
        quarters = st.integers(0, 12).map(lambda quarters: quarters / 4)  # exact in binary
        graph[name] = (needs, draw(quarters), draw(quarters), draw(st.integers(0, 5)) == 0)
    return graph


def digraph(graph):
    """Edges from what is needed to what needs it."""
    drawn = networkx.DiGraph([(need, name) for name, (needs, *_) in graph.items() for need in needs])
    drawn.add_nodes_from(graph)
    return drawn


class Recorder:
    """Tools that sleep, and what was seen of them."""

    def __init__(self, graph):
        self.graph, self.running, self.most, self.ended = graph, set(), 0, []

    async def tool(self, name, *results):
        _, duration, _, fails = self.graph[name]
        self.running.add(name)
        self.most = max(self.most, len(self.running))
        try:
            await asyncio.sleep(duration)
            if fails:
                raise ValueError(f"no luck with {name}")
            return [name, *results]
        finally:
            self.running.discard(name)
            self.ended.append(name)

    async def planner(self):
        for name, (needs, duration, pause, _) in self.graph.items():
            await asyncio.sleep(pause)
            yield Call(name, "tool", (name, *map(Ref, needs)), duration=duration)

    async def run(self, **limits):
        return await run_plan(self.planner(), {"tool": self.tool}, PlanLimits(**limits))


@given(graphs())
def test_each_call_starts_when_it_is_written_and_all_it_needs_has_ended(graph):
    result = run_virtual(Recorder(graph).run())
    at, arrived = 0.0, {}
    for name, (_, _, pause, _) in graph.items():
        arrived[name] = at = at + pause
    failing = {name for name, (*_, fails) in graph.items() if fails}
    below = digraph(graph)
    lost = set().union(*(networkx.descendants(below, name) for name in failing))
    ends = {}
    for name in networkx.topological_sort(below):
        needs, duration, _, _ = graph[name]
        outcome = result.outcomes[name]
        if name in lost:
            assert (outcome.status, outcome.started_s) == ("skipped", None)
            assert any(f"no luck with {other}" in outcome.reason for other in networkx.ancestors(below, name) & failing)
            continue
        start = max([arrived[name], *(ends[need] for need in needs)])
        ends[name] = start + duration
        assert outcome.status == ("failed" if name in failing else "finished")
        assert (outcome.started_s, outcome.ended_s) == (start, ends[name])
        if name not in failing:
            assert result[name] == [name, *(result[need] for need in needs)]
    assert result.wall_s == max([at, *ends.values()])
    assert list(result.calls) == list(graph)


@given(graphs(), st.integers(1, 3))
def test_no_more_calls_run_at_once_than_there_are_slots_and_no_slot_is_idle(graph, slots):
    graph = {name: (needs, duration, 0.0, False) for name, (needs, duration, _, _) in graph.items()}
    recorder = Recorder(graph)
    result = run_virtual(recorder.run(at_once=slots))
    assert recorder.most <= slots
    assert result.ok
    works = digraph(graph)
    path = max(sum(graph[name][1] for name in chain) for chain in all_chains(works))
    work = sum(duration for _, duration, *_ in graph.values())
    assert (
        max(path, work / slots) <= result.wall_s <= path + (work - path) / slots
    )  # Graham's bound for any list schedule
    assert result.critical_path_s == path


def all_chains(graph):
    """Every chain from a source to a sink."""
    sources = [name for name in graph if not graph.in_degree(name)]
    sinks = [name for name in graph if not graph.out_degree(name)]
    return [
        chain
        for source in sources
        for sink in sinks
        for chain in ([[source]] if source == sink else networkx.all_simple_paths(graph, source, sink))
    ]


def test_where_slots_are_scarce_the_longest_way_to_the_end_goes_first():
    started = []

    async def tool(name, *_):
        started.append(name)
        await asyncio.sleep(1)

    calls = [Call("a", tool, ("a",)), Call("b", tool, ("b",)), Call("c", tool, ("c", Ref("b")), duration=5)]

    async def run():
        run = PlanRun(limits=PlanLimits(at_once=1))
        run.add(Call("first", tool, ("first",)))
        for call in calls:
            run.add(call)
        run.close()
        return await run.result()

    run_virtual(run())
    assert started == ["first", "b", "c", "a"]


@given(graphs(cycles=True))
def test_cycles_and_unknown_needs_fail_alone_and_nothing_hangs(graph):
    result = run_virtual(Recorder(graph).run())
    drawn = digraph(graph)
    bad = {name for part in networkx.strongly_connected_components(drawn) if len(part) > 1 for name in part}
    bad |= {name for name in drawn if drawn.has_edge(name, name)} | ({MISSING} & set(drawn))
    bad |= {name for name, (*_, fails) in graph.items() if fails}
    for name in graph:
        reachable = networkx.ancestors(drawn, name) | {name}
        assert (result.outcomes[name].status == "finished") == (not reachable & bad), name


def test_a_cycle_and_an_unknown_need_are_named():
    async def run():
        a, b, c = Call("a", print, after=("b",)), Call("b", print, after=("a",)), Call("c", print, after=("d", "a"))
        return await run_plan([a, b, c, Call("e", print, after=("e",))])

    outcomes = asyncio.run(run()).outcomes
    assert outcomes["a"].reason == "it is in a cycle: a -> b -> a"
    assert outcomes["c"].reason == "needs d, which is not in the plan"
    assert outcomes["e"].reason == "it is in a cycle: e -> e"


@given(graphs(), st.floats(0, 20))
def test_cancelled_at_any_point_it_leaves_nothing_running(graph, at):
    recorder = Recorder(graph)

    async def run():
        plan = asyncio.ensure_future(recorder.run())
        await asyncio.sleep(at)
        ended = plan.done()
        plan.cancel()
        await asyncio.wait([plan])
        assert plan.cancelled() != ended
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(run())
    assert not recorder.running


@given(graphs(), st.floats(0.1, 10))
def test_a_deadline_ends_a_plan_and_keeps_what_finished(graph, deadline):
    free = run_virtual(Recorder(graph).run())
    bounded = run_virtual(Recorder(graph).run(deadline_s=deadline))
    assert bounded.wall_s <= max(deadline, 0.0) + 1e-9
    for name, outcome in bounded.outcomes.items():
        whole = free.outcomes[name]
        if whole.ended_s is not None and whole.ended_s < deadline:
            assert outcome == whole
        elif outcome.status == "cancelled":
            assert outcome.reason == f"deadline_s={deadline}"
        elif outcome.status == "skipped":
            assert whole.status == "skipped" or f"deadline_s={deadline}" in outcome.reason
        else:
            assert outcome.ended_s == deadline


def test_one_call_can_be_cancelled_and_only_what_needs_it_is_skipped():
    async def run():
        plan = PlanRun({"wait": asyncio.sleep})
        for call in (Call("1", "wait", (5,)), Call("2", "wait", (1,), after=("1",)), Call("3", "wait", (1,))):
            plan.add(call)
        plan.close()
        await asyncio.sleep(0.5)
        plan.cancel("1", "not needed")
        with pytest.raises(InputError, match="no call '7'; it has 1, 2, 3"):
            plan.cancel("7")
        return await plan.result()

    result = run_virtual(run())
    assert [each.status for each in result.outcomes.values()] == ["cancelled", "skipped", "finished"]
    assert result.outcomes["2"].reason == "needs 1: not needed"
    assert result.wall_s == 1


def test_results_enter_arguments_as_they_are_and_texts_up_to_a_limit():
    async def page():
        return {"title": "$2 or ${2}", "links": ["a", "b"], "body": "x" * 10_000_000}

    seen = []

    def take(*args, **kwargs):
        seen.append((args, kwargs))

    async def run():
        plan = Plan()
        got = plan.call(page)
        plan.call(take, text("<", got["title"], ">", got["links"][1]), [got["links"], {"k": (got["title"],)}])
        plan.call(take, body=got["body"], cut=text(got["body"]))
        plan.call(take, got["nothing"])
        plan.call(take, got["links"][7])
        return await plan.run(PlanLimits(text_characters=100, at_once=1))

    result = asyncio.run(run())
    (first, _), (_, second) = seen
    assert first == ("<$2 or ${2}>b", [["a", "b"], {"k": ("$2 or ${2}",)}])  # the result is not read as a reference
    assert len(second["body"]) == 10_000_000
    assert second["cut"] == "x" * 100 + " [9999900 characters left out]"
    assert result.outcomes["4"].reason == "InputError: $1['nothing']: the result of 1 has no 'nothing'"
    assert result.outcomes["5"].reason == "InputError: $1['links'][7]: the result of 1 has no 7"
    assert result[Ref("1")["links"][0]] == "a"


def test_what_cannot_be_used_of_a_plan_is_a_problem_and_the_rest_runs():
    async def planner():
        yield Call("1", "echo", ("x",))
        yield Call("1", "echo", ("y",))
        yield Call("2", "nothing", (Ref("1"),))
        yield Problem("a line that was no call")
        raise ConnectionError("the planner is gone")

    result = asyncio.run(run_plan(planner(), {"echo": lambda x: x}))
    assert result.values == {"1": "x"}
    assert result.outcomes["2"].reason == "unknown tool 'nothing'; there is echo"
    assert result.problems == (
        "call 1 comes twice; the first one counts",
        "a line that was no call",
        "the plan ended early: ConnectionError: the planner is gone",
    )
    assert not result.ok


def test_a_planner_without_end_is_stopped_at_the_bound():
    closed = []

    async def planner():
        number = 0
        try:
            while True:
                number += 1
                yield Call(str(number), str, (number,))
        finally:
            closed.append(number)

    result = asyncio.run(run_plan(planner(), limits=PlanLimits(calls=7)))
    assert len(result.values) == 7
    assert result.problems == ("the plan was cut at limits.calls=7",)
    assert closed == [8]


def test_outcomes_are_reported_as_they_come_and_a_raising_callback_ends_nothing():
    seen = []

    def report(call, outcome):
        seen.append((call.id, outcome.status))
        raise RuntimeError("no room")

    calls = [Call("1", asyncio.sleep, (2,)), Call("2", asyncio.sleep, (1,)), Call("3", "?", after=("1",))]
    result = run_virtual(run_plan(calls, on_outcome=report))
    assert seen == [("3", "failed"), ("2", "finished"), ("1", "finished")]
    assert len(result.problems) == 3


def test_earlier_results_can_be_referred_to_until_a_call_takes_their_number():
    calls = [Call("3", str, (Ref("1"),)), Call("2", str, ("new",)), Call("4", str, (Ref("2"),))]
    result = asyncio.run(run_plan(calls, known={"1": "one", "2": "old"}))
    assert result.values == {"3": "one", "2": "new", "4": "new"}


@given(graphs())
def test_the_critical_path_is_the_longest_of_all_chains(graph):
    longest = max(sum(graph[name][1] for name in chain) for chain in all_chains(digraph(graph)))
    assert critical_path({name: (tuple(needs), duration) for name, (needs, duration, *_) in graph.items()}) == longest


def test_a_long_chain_takes_no_stack():
    calls = [Call("0", int)] + [Call(str(k), lambda before: before + 1, (Ref(str(k - 1)),)) for k in range(1, 3000)]
    result = asyncio.run(run_plan(calls, limits=PlanLimits(calls=5000, at_once=2)))
    assert result["2999"] == 2999
    assert result.critical_path_s <= result.wall_s


@pytest.mark.parametrize("bound", ["at_once", "deadline_s", "call_deadline_s", "calls", "text_characters"])
def test_a_bound_that_is_none_is_refused_in_one_line(bound):
    with pytest.raises(InputError, match=f"limits: {bound}=0: Input should be greater than"):
        asyncio.run(run_plan([], limits={bound: 0}))


def test_a_bound_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="limits has no field 'slots'; it has at_once, deadline_s, "):
        asyncio.run(Plan().run({"slots": 3}))


@pytest.mark.parametrize("stop", ["deadline", "cancel"])
def test_what_a_planner_writes_in_the_moment_of_the_end_does_not_start(stop):
    started = []

    async def tool(name):
        started.append(name)
        await asyncio.sleep(100)

    async def planner():
        yield Call("1", tool, ("1",))
        await asyncio.sleep(5)
        for name in "23456":
            yield Call(name, tool, (name,))
            await asyncio.sleep(0)

    async def run():
        plan = asyncio.ensure_future(run_plan(planner(), limits=PlanLimits(deadline_s=5 if stop == "deadline" else 50)))
        await asyncio.sleep(5)
        if stop == "cancel":
            plan.cancel()
        await asyncio.wait([plan])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        before = len(started)
        await asyncio.sleep(20)
        assert len(started) == before

    run_virtual(run())
