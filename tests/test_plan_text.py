"""Plan texts as planners write them: LLMCompiler's lines and Plan-over-Graph's JSON, in pieces, cut and broken."""

import ast
import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_reason.plans import Call, Problem, Ref, Subtask, calls_in, run_plan, subtasks_in, text
from parallel_reason.plans.arguments import arguments, literal
from parallel_reason.plans.llm_compiler import Decision, read_decision
from parallel_reason.plans.llm_compiler_text import PlanText
from parallel_reason.plans.references import with_references

# Two plans of configs/parallelqa/gpt_prompts.py and configs/hotpotqa/gpt_prompts.py of SqueezeAILab/LLMCompiler at
# dca77b2; the lines without a last bracket are as published.
CHEETAH = """1. search("cheetah")
2. math("cheetah max speed in km/h if 1.3 times slower?", ["$1"]
3. search("greyhound")
4. math("greyhound max speed in km/h if 1.5 times faster?", ["$3"]
5. search("falcon")
6. math("falcon max speed in km/h if 2.3 times slower?", ["$5"]
7. math("max($2, $4, $6) / min($2, $4, $6)")
Thought: I can answer the question now.
8. join()<END_OF_PLAN>
###
"""
MAGAZINES = """1. search("Arthur's Magazine")
2. search("First for Women (magazine)")
Thought: I can answer the question now.
3. join()<END_OF_PLAN>
###

Question: Were Pavel Urysohn and Leonid Levin known for the same type of work?
1. search("Pavel Urysohn")
"""


def read(source):
    """All items of a plan text, given whole or as pieces."""

    async def pieces():
        for piece in source:
            yield piece

    async def run():
        return [item async for item in calls_in(source if isinstance(source, str) else pieces())]

    return asyncio.run(run())


def shape(calls):
    return [(call.id, call.tool, call.args, dict(call.kwargs)) for call in calls]


def test_published_plans_are_read_as_they_are_published():
    assert shape(read(MAGAZINES)) == [
        ("1", "search", ("Arthur's Magazine",), {}),
        ("2", "search", ("First for Women (magazine)",), {}),
    ]
    calls = read(CHEETAH)
    assert [call.needs for call in calls] == [(), ("1",), (), ("3",), (), ("5",), ("2", "4", "6")]
    assert calls[1].args == ("cheetah max speed in km/h if 1.3 times slower?", [Ref("1")])
    two, four, six = (Ref(name) for name in "246")
    assert calls[6].args == (text("max(", two, ", ", four, ", ", six, ") / min(", two, ", ", four, ", ", six, ")"),)


@given(st.sampled_from([CHEETAH, MAGAZINES]), st.data())
def test_the_pieces_in_which_a_plan_comes_make_no_difference(plan, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(plan)), max_size=20)))
    pieces = [plan[start:end] for start, end in zip([0, *cuts], [*cuts, len(plan)], strict=True)]
    assert read(pieces) == read(plan)


constants = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(constants, min_size=1, max_size=3), st.dictionaries(st.sampled_from(["a", "b_2"]), constants))
def test_arguments_are_the_literals_that_python_reads(args, kwargs):
    """What `ast.literal_eval` reads is read the same; ``$`` is left out, as it has a meaning here alone."""
    said = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    said = said.replace("$", "S")
    found_args, found_kwargs = arguments(said, 5)
    assert found_args == tuple(ast.literal_eval(repr(arg).replace("$", "S")) for arg in args)
    assert found_kwargs == {name: ast.literal_eval(repr(value).replace("$", "S")) for name, value in kwargs.items()}
    assert shape(read(f"7. tool({said})\n8. join()")) == [("7", "tool", found_args, found_kwargs)]


@given(st.text(), st.integers(1, 30))
def test_any_text_is_read_and_none_is_run(written, number):
    args, kwargs = arguments(written, number)
    assert isinstance(args, tuple)
    assert all(isinstance(name, str) for name in kwargs)


@pytest.mark.parametrize(
    ("written", "args", "kwargs"),
    [
        ("", (), {}),
        ("$1", (Ref("1"),), {}),
        ("${2}, [$1, '$1']", (Ref("2"), [Ref("1"), Ref("1")]), {}),
        ('query="about $1.", top=3', (), {"query": text("about ", Ref("1"), "."), "top": 3}),
        ("$1['title'][0]", (Ref("1")["title"][0],), {}),
        ('{"k": true, "n": null}', ({"k": True, "n": None},), {}),
        ("Arthur's Magazine (1844)", ("Arthur's Magazine (1844)",), {}),
        ("'Arthur's Magazine'", ("Arthur's Magazine",), {}),
        ("what is $1 plus one?", (text("what is ", Ref("1"), " plus one?"),), {}),
        ("'costs $50'", ("costs $50",), {}),
        ("-3, +2.5", (-3, 2.5), {}),
        ("__import__('os').system('echo no')", ("__import__('os').system('echo no')",), {}),
        ("[x for x in 'ab']", ("[x for x in 'ab']",), {}),
        ("2 ** 10 ** 10", ("2 ** 10 ** 10",), {}),
        ("*$1, **{}", (text("*", Ref("1"), ", **{}"),), {}),
        ("{[1]}", ("{[1]}",), {}),
        ("1" * 5000, ("1" * 5000,), {}),
        ("(" * 5000, ("(" * 5000,), {}),
        ("-" * 5000 + "1", ("-" * 5000 + "1",), {}),
        ("a\x00b", ("a\x00b",), {}),
    ],
)
def test_arguments_are_literals_references_or_one_text(written, args, kwargs):
    assert arguments(written, 3) == (args, kwargs)


def test_a_reference_is_to_a_call_before_unless_it_has_braces():
    assert with_references("$1 $3 ${3} $99", 3) == text(Ref("1"), " $3 ", Ref("3"), " $99")
    assert with_references("no", 3) == "no"
    assert [item.text for item in read("1. pay('$2')\n2. get('x')\n3. join()") if isinstance(item, Problem)] == [
        "call 1 has $2, which came after it and was read as text"
    ]


def test_a_call_is_given_as_soon_as_its_bracket_closes():
    plan = PlanText()
    assert plan.feed('1. search("a (b")') == [Call("1", "search", ("a (b",), written='1. search("a (b")')]
    assert plan.feed(" # why\n2. f(g(1), [')']") == []
    assert shape(plan.feed(")")) == [("2", "f", ("g(1), [')']",), {})]
    assert plan.feed("\n3. join(") == []
    assert plan.feed(")") == []
    assert plan.joined


@pytest.mark.parametrize(
    ("plan", "ids", "problems"),
    [
        ("", [], ["the plan's text ends without join()"]),
        ('1. search("a")\n2. search("b', ["1"], ["the plan's text ends within call 2, which is left out"]),
        ('1. search("a")\n2. join(', ["1"], []),
        ('1. search("a")\njoin()', ["1"], []),
        ('1. search("a")<END_OF_PLAN>', ["1"], ["the plan's text ends without join()"]),
        ('1. search("a")\n<END_OF_PLAN>', ["1"], []),
        ("1. Look it up.\n2. Think (hard).\n3. join()", [], ["no call: '1. Look it up.'", "no call: '2. Think ('"]),
        ("Sure (of course)! Here:\n\n  1.search(x) \n\n2. join()", ["1"], []),
        ('1. search("a)\n2. search(b]\n3. join()', ["1", "2"], []),
    ],
)
def test_text_that_ends_early_or_is_no_plan_loses_nothing_else(plan, ids, problems):
    items = read(plan)
    assert [item.id for item in items if isinstance(item, Call)] == ids
    assert [item.text for item in items if isinstance(item, Problem)] == problems


def test_a_line_without_end_is_left_out():
    items = read('1. search("' + "x" * 300_000 + '")\n2. search("b")\n3. join()')
    assert [item.text for item in items if isinstance(item, Problem)] == [
        "a line of the plan has more than 200000 characters and is left out"
    ]
    assert [item.id for item in items if isinstance(item, Call)] == ["2"]


@given(st.lists(st.sampled_from([*"1.2 f(g)'\"[]{}$\\\n#,", "join", "<END_OF_PLAN>", "${1}"])).map("".join))
def test_no_text_makes_the_reader_fail_and_every_plan_ends(plan):
    result = asyncio.run(run_plan(calls_in(plan), {"f": lambda *args: args, "g": lambda *args: 1}))
    assert set(result.outcomes) == set(result.calls)


def test_what_an_observation_says_is_never_a_reference():
    plan = "1. get()\n2. name('two')\n3. both('$1', 'so: $1, $2')\n4. join()"
    tools = {"get": lambda: "$2 is ${1}", "name": str, "both": lambda *args: args}
    result = asyncio.run(run_plan(calls_in(plan), tools))
    assert result["3"] == ("$2 is ${1}", "so: $2 is ${1}, two")


@pytest.mark.parametrize(
    ("reply", "decision"),
    [
        ("Thought: so.\nAction: Finish(Arthur's Magazine)\n###", Decision(False, "Arthur's Magazine", "so.")),
        ("Action: Finish(f(x) = (x + 1) (mod 3))", Decision(False, "f(x) = (x + 1) (mod 3)")),
        ("Action: Finish([0, 1))", Decision(False, "[0, 1)")),
        ("Action: Finish(1) one, 2) two)", Decision(False, "1) one, 2) two")),
        ("Action: Finish(yes)\n(I am sure)", Decision(False, "yes")),
        ("Action: Finish(a (b)\nc)\nThought: (done)", Decision(False, "a (b)\nc")),
        ("Action: Finish(cut off", Decision(False, "cut off")),
        ("Thought: no.\nAction: Replan(need the height (m))", Decision(True, "need the height (m)", "no.")),
        ("It is 42.", Decision(False, "It is 42.")),
    ],
)
def test_a_joiners_answer_is_whole(reply, decision):
    assert read_decision(reply) == decision


# Plan-over-Graph.

# The worked example of template/planner/abstask_plan.py of zsq259/Plan-over-Graph at 61da430.
EXAMPLE = """```json
[
    {
      "name": "Subtask1",
      "source": ["N1"],
      "target": "N2",
      "dependencies": []
    },
    {
      "name": "Subtask2",
      "source": ["N6"],
      "target": "N3",
      "dependencies": []
    },
    {
      "name": "Subtask3",
      "source": ["N2", "N3"],
      "target": "N4",
      "dependencies": ["Subtask1", "Subtask2"]
    }
]
```"""


def read_subtasks(source):
    async def pieces():
        for piece in source:
            yield piece

    async def run():
        return [item async for item in subtasks_in(source if isinstance(source, str) else pieces())]

    return asyncio.run(run())


def test_a_published_graph_plan_is_read_in_any_pieces():
    expected = [
        Subtask(name="Subtask1", source="N1", target="N2"),
        Subtask(name="Subtask2", source="N6", target=["N3"]),
        Subtask(name="Subtask3", source=["N2", "N3"], target="N4", dependencies=["Subtask1", "Subtask2"]),
    ]
    assert read_subtasks(EXAMPLE) == read_subtasks(list(EXAMPLE)) == expected
    inside = json.dumps({"thought": "{so}", "plan": json.loads(EXAMPLE.strip("`json\n"))})
    assert read_subtasks(inside) == expected
    assert read_subtasks(str(json.loads(EXAMPLE.strip("`json\n")))) == expected  # with the quotes of Python


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ('[{"name": "S1", "source": ["N1"], "targ', "the plan's text ends within a subtask, which is left out"),
        ('[{"name": "S1", "source": ["N1"]}]', "no subtask: {'name': 'S1', 'source': ['N1']}: Field required"),
        ('[{"name": "S1", "source": [1], "target": "N2"}]', "no subtask"),
        ("[{name: S1}]", "no JSON: '{name: S1}'"),
        ('[{"name": S1 + __import__("os").getcwd()}]', "no JSON"),
    ],
)
def test_a_broken_subtask_is_a_problem(plan, problem):
    (item,) = read_subtasks(plan)
    assert isinstance(item, Problem)
    assert item.text.startswith(problem)


@given(st.text(alphabet='{}[]":,\\a1 \n'))
def test_no_text_makes_the_reader_of_subtasks_fail(plan):
    for item in read_subtasks(plan):
        assert isinstance(item, Problem)


@pytest.mark.parametrize("written", ["os.getcwd()", "a", "1 + 1", "", "$1"])
def test_only_literals_are_literals(written):
    with pytest.raises(ValueError, match="no literal"):
        literal(written)
