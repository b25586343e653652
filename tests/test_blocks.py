"""Blocks of every grammar: which children they ask for, those that cannot be read, and how children end."""

import pytest

from benchmarks.grammars import tokenizer, tokenizer_of
from parallel_reason import Limits
from parallel_reason.dialects import bind
from parallel_reason.dialects.base import ChildResult, Insert, Rewrite, ThreadView
from parallel_reason.engines.scripted import ScriptedEngine
from tests.written import BLOCK, GOAL, OUTLINE, PLAN, WEAVE, run, scripted, written

MANY = "".join(f"<Outline>{k}:" for k in range(600))
NO_START = "<Calling Sub Searches> with no <Start Sub Search>"
NODES = "node #0,7, which has no state"


def kids(trace):
    """What each child of the first fork was asked, up to its number."""
    tokens = tokenizer_of([trace.dialect])
    return [tokens.decode(child.spans[0].ids).strip() for child in trace.children(trace.root.forks[0])]


@pytest.mark.parametrize(
    ("name", "block", "wanted"),
    [
        ("multiverse", GOAL(OUTLINE(1) + OUTLINE(3)), ["1", "3"]),  # a number skipped
        ("multiverse", GOAL(OUTLINE(2) + OUTLINE(2) + OUTLINE(1)), ["2", "2", "1"]),  # each is a path, as they run it
        ("multiverse", GOAL(OUTLINE("1.2") + OUTLINE("1.10.3")), ["1.2", "1.10.3"]),
        ("multiverse", GOAL(OUTLINE("9" * 50)), ["9" * 50]),
        ("multiverse", GOAL(OUTLINE("x") + OUTLINE("1.") + OUTLINE(4)), ["4"]),  # what has no number is no path
        ("multiverse", "<Goal>" + GOAL(OUTLINE(5)), ["5"]),  # the newest <Goal> counts
        ("multiverse", GOAL("<Outline>1:<Outline>2:"), ["1", "2"]),  # closers are not asked for
        ("npr", PLAN("<plan>7:o</plan><plan>7:o</plan>"), ["7", "7"]),
        ("threadweaver", WEAVE(OUTLINE(2) + OUTLINE(2) + OUTLINE("1.1")), ["2", "1.1"]),  # repeated ones run once
    ],
)
def test_children_are_the_numbers_of_the_list(name, block, wanted):
    header = {"multiverse": "<Path>\n{}:", "npr": "<step>\n{}:", "threadweaver": "<Thread>\n{}:"}[name]
    assert kids(scripted(name, {"0": ["a" + block]})) == [header.format(number) for number in wanted]


@pytest.mark.parametrize(("name", "block"), [("multiverse", GOAL(MANY)), ("threadweaver", WEAVE(MANY))])
def test_a_list_of_hundreds_is_cut_by_the_bound_on_children(name, block):
    trace = scripted(name, {"0": [block]}, Limits(children=5))
    children = trace.children(trace.root.forks[0])
    assert [child.status for child in children] == ["finished"] * 5 + ["cancelled"] * 595
    assert {child.stop_reason for child in children[5:]} == {"limits.children=5"}
    assert trace.status == "finished"  # and the parent went on


@pytest.mark.parametrize(
    ("name", "block", "reason", "ends"),
    [
        ("multiverse", "</Goal>", "</Goal> without <Goal>", False),
        ("multiverse", GOAL("o"), "<Goal> without a numbered <Outline>", False),
        ("multiverse", GOAL(OUTLINE("x")), "<Goal> without a numbered <Outline>", False),
        ("multiverse", "</Goal><Goal></Goal>"[7:], "<Goal> without a numbered <Outline>", False),
        ("npr", "<plan>1:o</plan></guideline>", "</guideline> without <guideline>", True),
        ("npr", "<guideline></step>", None, True),
        ("npr", PLAN("o"), "<guideline> with 0 numbered plans, not 1 to 5", True),
        ("npr", PLAN("<plan>1:o" * 6), "<guideline> with 6 numbered plans, not 1 to 5", True),
        ("npr", PLAN("<plan>1:o" * 3000), "<guideline> with 3000 numbered plans, not 1 to 5", True),
        ("threadweaver", "</Outlines>", "</Outlines> without <Outlines>", False),
        ("threadweaver", WEAVE("<Outline>a</Outline>"), "<Outlines> without a numbered <Outline>", False),
        ("apr", "\n<End Calling Sub Searches><eos>", "<End Calling Sub Searches> without <Calling Sub Searches>", True),
        ("apr", "<Calling Sub Searches>\n<End Calling Sub Searches>\n<eos>", NO_START, True),
        ("apr", BLOCK.replace("#0,1", "#0,7"), "<Calling Sub Searches> with " + NODES, True),
        ("spawn_join", "a</spawn>", "</spawn> without <spawn>", False),
        ("spawn_join", "<spawn>a<sep></spawn>", "message 1 of the <spawn> block is empty", False),
    ],
)  # fmt: skip
def test_a_block_that_cannot_be_read_is_recorded_and_the_thread_goes_on_or_ends(name, block, reason, ends):
    trace = scripted(name, {"0": [block, "b<eos>"]})
    assert [block.reason for block in trace.root.malformed] == ([reason] if reason else [])
    assert not trace.root.forks
    assert trace.status == "finished"
    assert trace.text.endswith("b") != ends


@pytest.mark.parametrize("tags", ["tokens", "text"])
@pytest.mark.parametrize(
    ("name", "texts", "reasons"),
    [
        ("threadweaver", {"0": ["<Parallel><Thread>1: x</Thread></Parallel>b<eos>"]}, ["</Parallel> without a fork"]),
        ("multiverse", {"0": ["<Parallel>a</Parallel><Parallel>b</Parallel>"]}, ["</Parallel> without a fork"] * 2),
        ("npr", {"0": ["a<takeaway>b</takeaway>"]}, ["</takeaway> without a fork"]),
        ("parallel_r1", {"0": ["a<Summary>b</Summary>"]}, ["</Summary> without a fork"]),
        ("multiverse", {"0": [GOAL("o") + "</Parallel>"]}, ["<Goal> without a numbered <Outline>"]),  # counted once
        ("multiverse", {"0": [GOAL(OUTLINE(1)), "c</Parallel>"], "0.0": ["x</Path>"]}, []),
        ("threadweaver", {"0": [WEAVE(OUTLINE(1)), "</Parallel>"], "0.0": ["x</Thread>"]}, []),
    ],
)
def test_a_block_that_was_closed_without_a_fork_is_malformed(name, texts, reasons, tags):
    tokens = tokenizer_of([name]) if tags == "tokens" else tokenizer([])
    trace = scripted(name, texts, tokens=tokens)
    assert [block.reason for block in trace.root.malformed] == reasons
    assert trace.ledger.malformed_forks == len(reasons)
    assert trace.status == "finished"


@pytest.mark.parametrize(
    ("name", "root", "child", "after", "wanted"),
    [  # children that close, end on the end of text, or are cut by the bound of 12 tokens
        ("multiverse", GOAL(OUTLINE(1)), "x</Path>", "{\n}{<Conclusion>\n}", "x</Path>{\n}"),
        ("multiverse", GOAL(OUTLINE(1)), "x<eos>", "{\n}{<Conclusion>\n}", "x[<eos>]{\n}"),
        ("multiverse", GOAL(OUTLINE(1)), "x" * 99, "{\n}{<Conclusion>\n}", "LONG" + "{\n}"),
        ("npr", PLAN("<plan>1:o"), "x" * 99, "{\n}{<takeaway>\n}", "LONG" + "{\n}"),
        ("threadweaver", WEAVE(OUTLINE(1)), "x" * 99, "{\n</Parallel>}", "LONG" + "{\n</Thread>}"),
        ("parallel_r1", "<Parallel>", "x" * 99, "{</Parallel>\n<Summary>}", "LONG" + "{</Path>}"),
        ("parallel_r1", "<Parallel>", "x<Parallel>y</Path>", "{</Parallel>\n<Summary>}", "x<Parallel>y</Path>"),
        ("parathinker", "", "x" * 99, "{<summary>}", "LONG" + "{</think1>}"),
        ("parathinker", "", "x</think3>", "{<summary>}", "x</think3>"),
        ("spawn_join", "<spawn>m</spawn>", "x<return>" + "y" * 99, "{<join><none></join>}", "x<return>LONG"),
        ("spawn_join", "<spawn>m</spawn>", "x<return>y<eos>", "{<join>y</join>}", "x<return>y<eos>"),
    ],
)  # fmt: skip
def test_a_child_is_joined_however_it_ends(name, root, child, after, wanted):
    tokens = tokenizer_of([name])
    engine = ScriptedEngine.from_texts(tokens, {"0": [root], "0.0": [child]})
    options = {"paths": 1} if name in ("parallel_r1", "parathinker") else {}
    bound = len(tokens.encode(root)) + 12
    long = child[-1] * (bound - len(tokens.encode(child.rstrip(child[-1]))))
    trace = run(engine, name, Limits(depth=1, tokens_per_thread=bound), **options)
    cut = trace.threads[1]
    assert written(trace)["0"].startswith(root + after)
    assert written(trace)["0.0"].partition("}")[2] == wanted.replace("LONG", long)
    assert cut.status == ("length" if "LONG" in wanted else "finished")


@pytest.mark.parametrize(
    ("name", "options", "root", "child", "copy"),
    [
        ("multiverse", {}, GOAL(OUTLINE(1) + OUTLINE(2)), "{<Path>\n2:}", ""),
        ("npr", {}, PLAN("<plan>1:o<plan>2:o"), "{<step>\n2:}", ""),
        ("threadweaver", {}, WEAVE(OUTLINE(1) + OUTLINE(2)), "{\n<Thread>\n2:}", "(<Thread>\n2:\n</Thread>)"),
        ("parallel_r1", {}, "<Parallel>", "{<Path>}", ""),
        ("parallel_r1", {"view": "seen"}, "<Parallel>", "{<Path>}", "(<Path></Path>)"),
        ("parathinker", {"paths": 2}, "", "{<think2>}", ""),
    ],
)
def test_a_child_that_never_ran_stays_as_it_is_and_only_a_copy_of_it_is_closed(name, options, root, child, copy):
    trace = scripted(name, {"0": [root] if root else []}, Limits(children=1), **options)
    assert trace.threads[2].status == "cancelled"
    assert written(trace)["0.1"] == child
    assert ("(" in written(trace)["0"]) == bool(copy)
    assert copy in written(trace)["0"]


@pytest.mark.parametrize(("name", "tag"), [("threadweaver", "\n</Thread>"), ("parallel_r1", "</Path>")])
def test_a_first_child_that_never_ran_is_laid_down_with_the_others(name, tag):
    tokens = tokenizer_of([name])
    dialect = bind(name, tokens, **({"view": "seen"} if name == "parallel_r1" else {}))

    def child(header, text, ended):  # a header may come in pieces
        ids, pieces = tokens.encode(text), (Insert(tuple(tokens.encode(piece))) for piece in header)
        return ChildResult(tuple(pieces), ids, ids, bool(text), ended)

    children = [child("ab", "", "lost"), child("cd", "x", "stop"), child("ef", "y<eos>", "eos")]
    join = dialect.join(ThreadView(0, [], [], 0, 0, "stop"), children)
    copies = [tokens.decode(list(piece.ids)) for piece in join.inserts if piece.copied]
    assert copies == ["ab" + tag, "cdx", "efy" + tag]
    assert join.closes == (Rewrite(),) * 3


def test_a_fork_inside_a_child_runs_where_the_grammar_nests_and_is_bounded_by_depth():
    texts = {"0": [GOAL(OUTLINE(1)), "c<eos>"], "0.0": ["x" + GOAL(OUTLINE("1.1")), "w</Path>"], "0.0.0": ["y</Path>"]}
    deep, flat = scripted("multiverse", texts), scripted("multiverse", texts, Limits(depth=1))
    assert written(deep)["0.0.0"] == "{<Path>\n1.1:}y</Path>{\n}"
    assert [thread.status for thread in deep.threads] == ["finished"] * 3
    assert [(thread.status, thread.stop_reason) for thread in flat.threads] == [
        ("finished", "<eos>"),
        ("length", "limits.depth=1"),
    ]
    for name, block in (("threadweaver", WEAVE(OUTLINE(1))), ("parallel_r1", "<Parallel>")):  # nothing nests in these
        tokens, end = tokenizer_of([name]), {"threadweaver": "</Thread>", "parallel_r1": "</Path>"}[name]
        trace = run(ScriptedEngine.from_texts(tokens, {"0": [block], "0.0": ["x" + block + end]}), name)
        assert trace.threads[1].text == "x" + block + end
        assert {thread.label.count(".") for thread in trace.threads} == {0, 1}
