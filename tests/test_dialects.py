"""Every dialect to the letter, and on what models write: well-formed, spoilt, and as text where no tag is a token."""

import asyncio
import os
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.grammars import PROMPTS, tokenizer, tokenizer_of
from parallel_reason import Limits, Session, layout
from parallel_reason.dialects import BUILT_IN, bind, find, grafts, known
from parallel_reason.dialects.base import Action, ChildResult, Insert, Rewrite, ThreadView
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.errors import InputError, ModelError
from parallel_reason.trace import from_json
from tests.chains import chain_engine

NAMES = [dialect.name for dialect in BUILT_IN]
COUNT = 50_000 if os.environ.get("ALL_SEQUENCES") else 400  # threads made, and as many mutated
WILD = Limits(depth=3, children=8, forks=6, tokens=1500, tokens_per_thread=60)
ROOMY = Limits(depth=3)


def run(engine, name, limits=WILD, **options):
    """The trace of a run on a scripted engine, which leaves no KV behind."""
    session = Session(engine, bind(name, engine.tokenizer, **options))
    prompt = engine.tokenizer.encode(PROMPTS.get(name, "ab"), add_special_tokens=False)
    trace = asyncio.run(session.run(prompt, limits=limits))[0]
    assert asyncio.run(engine.kv_is_free())
    assert not trace.errors
    return trace


def check(trace, engine):
    """What holds of every run, whatever was written."""
    assert trace.ledger.sampled_tokens <= 1500
    row = layout(trace)
    assert len(row.ids) == sum(len(span.ids) for thread in trace.threads for span in thread.spans)
    mask, labels = row.mask(), [thread.label for thread in trace.threads]
    wrote = {label: [] for label in labels}
    for segment in row.segments:
        wrote[labels[segment.thread]] += [i for i in range(segment.start, segment.stop) if row.sampled[i]]
    for request, output in zip(engine.requests, engine.outputs, strict=True):
        if request.max_tokens == 0:  # it computes KV alone
            continue
        own = wrote[request.label]
        seen = mask[own.pop(0)].nonzero()[0][:-1]  # what the layout shows the request's first token
        assert (row.ids[seen].tolist(), row.positions[seen].tolist()) == (request.ids, request.positions)
        del own[: len(output.ids) - 1]
    assert not any(wrote.values())
    assert from_json(trace.to_json()) == trace


def sampled(thread):
    """Ids of all that a thread sampled."""
    return [token for span in thread.spans if span.origin == "sampled" for token in span.ids]


def mutate(ids, rng, vocabulary):
    """One to three tokens deleted, doubled, swapped with the next, or replaced."""
    ids = list(ids)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(ids) or 1)
        here = ids[place : place + 1]
        put = rng.choice([[], here * 2, ids[place + 1 : place + 2] + here, [rng.randrange(vocabulary)]])
        ids[place : place + (2 if len(put) == 2 and put != here * 2 else 1)] = put
    return ids


@pytest.mark.parametrize("name", NAMES)
def test_no_sequence_raises_or_loops_and_every_request_is_what_the_layout_shows(name):
    """With ``ALL_SEQUENCES=1``, a hundred thousand threads a dialect, half of them mutated."""
    tokens, rng = tokenizer_of([name]), random.Random(0)
    made = mutated = seed = forks = malformed = joins = 0
    while made < COUNT or mutated < COUNT:
        engine = chain_engine(tokens, name, seed, spoil=(0.0, 0.03, 0.3)[seed % 3])
        trace = run(engine, name)
        texts = {thread.label: [mutate(sampled(thread), rng, len(tokens))] for thread in trace.threads}
        replay = ScriptedEngine.from_texts(tokens, texts)
        again = run(replay, name)
        for thread in again.threads:  # at the end of its text it ends, after at most one more answer to each join
            beyond = len(sampled(thread)) - len(texts.get(thread.label, [[]])[0])
            assert beyond <= 2 + 2 * len(thread.forks)
        for one, by in ((trace, engine), (again, replay)) if seed < 40 else ():
            check(one, by)
        seed, made, mutated = seed + 1, made + len(trace.threads), mutated + len(again.threads)
        for one in (trace, again):
            forks += one.ledger.forks
            malformed += one.ledger.malformed_forks
            joins += any(fork for thread in one.threads for fork in thread.forks if fork.at < len(thread.spans))
    assert forks > COUNT / 25
    assert joins
    assert malformed or name in ("parallel_r1", "parathinker", "ssft", "dc_cot")  # in these nothing can be malformed


TAGS = [tag for dialect in BUILT_IN for tag in dialect.tags.values()]
PIECES = [*TAGS, *PROMPTS.values(), "Goal Reached", "1:", "2.1:", "<", "a", "\n", "<eos>"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)
COUNTS = st.integers(0, 2)
KINDS = {"tokens": tokenizer_of(NAMES), "text": tokenizer(["|"])}
VIEWS = st.tuples(COUNTS, TEXTS, TEXTS, COUNTS, COUNTS, st.sampled_from(["start", "stop", "eos"]))
CHILDREN = st.lists(st.tuples(TEXTS, TEXTS, st.booleans(), st.sampled_from(["stop", "eos", "limit", "lost"])))


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NAMES), ("parallel_r1", {"view": "seen"})])
@pytest.mark.parametrize("kind", list(KINDS))
@settings(deadline=None)  # no clock: the machine may be busy
@given(shown=VIEWS, ended=CHILDREN)
@example(shown=(0, "", "", 0, 1, "stop"), ended=[("", "", False, "lost")] * 9)
def test_a_dialect_answers_whatever_it_is_shown(name, options, kind, shown, ended):
    """Views that no run makes are among them: an answer must not depend on what an engine or a run does."""
    tokens = KINDS[kind if name != "spawn_join" else "tokens"]
    dialect, (depth, seen, text, before_join, joins, stopped_at) = bind(name, tokens, **options), shown
    view = ThreadView(depth, tokens.encode(seen + text), tokens.encode(text), before_join, joins, stopped_at)
    assert isinstance(dialect.step(view), Action)
    children = []
    for header, own, ran, end in ended:
        ids = tokens.encode(own)
        children.append(ChildResult((Insert(tuple(tokens.encode(header))),), ids, ids, ran, end))
    join = dialect.join(view, children)
    assert any(piece.ids for piece in join.inserts)
    assert len(join.closes) in (0, len(children))


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("spawn_join", {"join_on": "first"}, "message"),
        ("apr", {}, "message"),
        ("multiverse", {}, "graft"),
        ("npr", {}, "graft"),
        ("threadweaver", {}, "relinearise"),
        ("parallel_r1", {"paths": 3}, "graft"),
        ("parallel_r1", {"view": "unseen"}, "graft"),
        ("parallel_r1", {"view": "seen"}, "relinearise"),
        ("parathinker", {"paths": 3}, "graft"),
        ("ssft", {}, "message"),
        ("dc_cot", {}, "relinearise"),
        ("async_think", {}, "message"),
    ],
)
def test_the_join_rule_is_known_by_the_options_and_kept_when_they_are_bound(name, options, rule):
    assert find(name).joins_by(**options) == rule
    assert bind(name, tokenizer_of([name]), **options).join_rule == rule
    assert grafts(name, **options) == (rule == "graft")


def test_a_stop_that_the_text_does_not_show_leaves_the_thread_as_it_is():
    """As from a server that leaves special tokens out of the text in which it looks for stops."""
    assert written(scripted("apr", {"0": ["a<Sub Search", "b<eos>"]}, tokens=KINDS["text"]), KINDS["text"])["0"] == (
        "a<Sub Searchb<eos>"
    )


def scripted(name, texts, limits=ROOMY, tokens=None, **options):
    """The trace of threads that write these texts, by label."""
    engine = ScriptedEngine.from_texts(tokens or tokenizer_of([name]), texts, context=20_000)
    return run(engine, name, limits, **options)


def written(trace, tokens=None):
    """Under every label, what the thread wrote after its prompt: inserts in {}, copies in (), what was taken back in
    []."""
    tokens = tokens or tokenizer_of([trace.dialect])
    marks = {"sampled": "{}", "injected": "{{{}}}", "copied": "({})"}
    texts = {}
    for thread in trace.threads:
        pieces = []  # [ids, form, whether they were taken back]
        for span in thread.spans:
            gone = span.taken_back
            for place in reversed(range(len(pieces))):
                ids, form, back = pieces[place]
                if gone and not back:
                    stay = max(0, len(ids) - gone)
                    pieces[place : place + 1] = [(ids[:stay], form, False), (ids[stay:], form, True)]
                    gone -= len(ids) - stay
            pieces += [(span.ids, marks[span.origin], False)] if span.origin != "prompt" else []
        text = [(form.format(tokens.decode(ids)), back) for ids, form, back in pieces if ids]
        texts[thread.label] = "".join(f"[{piece}]" if back else piece for piece, back in text)
    return texts


def positions(trace):
    """``positions(trace)(tag)``: where the tag stands, every time it does."""
    row, vocabulary = layout(trace), tokenizer_of([trace.dialect]).get_vocab()
    return lambda tag: row.positions[row.ids == vocabulary[tag]].tolist()


def test_multiverse_to_the_letter():
    goal = "<Parallel>\n<Goal>\n<Outline>\n1: p\n</Outline>\n<Outline>\n 2.1 : q\n</Outline>\n</Goal>"
    root = ["a" + goal, "s</Conclusion>\n</Parallel>b<eos>"]
    trace = scripted("multiverse", {"0": root, "0.0": [" x</Path>"], "0.1": ["yyy</Path>"]})
    assert written(trace) == {
        "0": "a" + goal + "{\n}{<Conclusion>\n}s</Conclusion>\n</Parallel>b<eos>",
        "0.0": "{<Path>\n1:} x</Path>{\n}",
        "0.1": "{<Path>\n2.1:}yyy</Path>{\n}",
    }
    at = positions(trace)
    assert at("<Path>") == [at("</Goal>")[0] + 1] * 2
    assert at("<Conclusion>") == [max(at("</Path>")) + 1]


def test_npr_to_the_letter():
    plans = "<guideline>\n<plan>1: p</plan>\n<plan>2: q</plan>\n</guideline>"
    trace = scripted("npr", {"0": ["a" + plans, "s</takeaway>b<eos>"], "0.0": [" x</step>"], "0.1": ["yyy<eos>"]})
    assert written(trace) == {
        "0": "a" + plans + "{\n}{<takeaway>\n}s</takeaway>b<eos>",
        "0.0": "{<step>\n1:} x</step>{\n}",
        "0.1": "{<step>\n2:}yyy[<eos>]{\n}",
    }
    at = positions(trace)
    start = at("</guideline>")[0]
    assert at("<step>") == [start + 1] * 2
    assert at("</step>") == [start + len("_\n1: x_")]
    assert at("<takeaway>") == [start + len("_\n2:yyy") + 1]  # one after the longest step, its end of text taken back


def test_threadweaver_to_the_letter():
    outlines = (
        "<Parallel>\n<Outlines>\n<Outline>1: p</Outline>\n<Outline>2: q</Outline>\n<Outline>1: r</Outline></Outlines>"
    )
    texts = {"0": ["a" + outlines, "</Parallel>b<eos>"], "0.0": [" x\n</Thread>"], "0.1": ["yyy</Thread>"]}
    trace = scripted("threadweaver", texts)
    assert written(trace) == {
        "0": "a" + outlines + "(<Thread>\n2:yyy</Thread>){\n}</Parallel>b<eos>",
        "0.0": "{\n<Thread>\n1:} x\n</Thread>",
        "0.1": "{\n<Thread>\n2:}yyy</Thread>",
    }
    row = layout(trace)
    seen = row.mask()[-1]
    text = "ab" + "a" + outlines + "\n<Thread>\n1: x\n</Thread><Thread>\n2:yyy</Thread>\n</Parallel>b<eos>"
    assert tokenizer_of(["threadweaver"]).decode(row.ids[seen].tolist()) == text
    assert row.positions[seen].tolist() == list(range(seen.sum()))
    trace = scripted("threadweaver", {"0": ["a" + outlines], "0.0": [" x<eos>"], "0.1": ["y<eos>"]})
    assert written(trace)["0"] == "a" + outlines + "(<Thread>\n2:y\n</Thread>){\n</Parallel>}"
    assert written(trace)["0.0"] == "{\n<Thread>\n1:} x[<eos>]{\n</Thread>}"
    assert (trace.status, trace.stop_reason) == ("finished", "a thread did not close")


def test_parallel_r1_to_the_letter():
    texts = {"0": ["a<Parallel>", "s<eos>", "b<eos>"], "0.0": ["x</Path>"], "0.1": ["yyy<eos>"]}
    unseen, seen = scripted("parallel_r1", texts), scripted("parallel_r1", texts, view="seen")
    assert written(unseen) == {
        "0": "a<Parallel>{</Parallel>\n<Summary>}s[<eos>]{</Summary>}b<eos>",
        "0.0": "{<Path>}x</Path>",
        "0.1": "{<Path>}yyy[<eos>]{</Path>}",
    }
    at = positions(unseen)
    assert at("<Path>") == [at("<Parallel>")[0] + 1] * 2
    assert at("</Parallel>") == [max(at("</Path>")) + 1]
    assert written(seen) == {
        "0": "a<Parallel>(<Path>yyy</Path>){</Parallel>\n<Summary>}s[<eos>]{</Summary>}b<eos>",
        "0.0": "{<Path>}x</Path>",
        "0.1": "{<Path>}yyy<eos>",
    }
    row = layout(seen)
    shown = row.mask()[-1]
    text = "aba<Parallel><Path>x</Path><Path>yyy</Path></Parallel>\n<Summary>s</Summary>b<eos>"
    assert tokenizer_of(["parallel_r1"]).decode(row.ids[shown].tolist()) == text
    assert row.positions[shown].tolist() == list(range(shown.sum()))


def test_parathinker_to_the_letter():
    trace = scripted("parathinker", {"0": ["s</summary>"], "0.0": ["x</think1>"], "0.1": ["yyy<eos>"]}, paths=2)
    assert written(trace) == {
        "0": "{<summary>}s</summary>",
        "0.0": "{<think1>}x</think1>",
        "0.1": "{<think2>}yyy[<eos>]{</think2>}",
    }
    at = positions(trace)
    assert at("<think1>") == at("<think2>") == [2]
    assert at("<summary>") == [at("</think2>")[0] + 1]


CALL = "<Start Sub Search {} at level 1> Moving to Node #{}\n"
BLOCK = f"<Calling Sub Searches>\n{CALL.format(0, '0,1')}{CALL.format(1, '0,0')}<End Calling Sub Searches>\n<eos>"


def test_apr_to_the_letter():
    found = "x\nGoal Reached\ny\nGoal Reached\n<eos>"
    calls = BLOCK.removeprefix("<Calling Sub Searches>")
    trace = scripted("apr", {"0": ["a<Sub Searches>", calls, "b<eos>"], "0.0": [found], "0.1": ["no<eos>"]})
    assert written(trace) == {
        "0": f"a[<Sub Searches>][{{<Calling Sub Searches>}}][{calls}]"
        "{<Sub Searches>\n<Goal Reached in Sub Search 0 at level 1 at Node #0,1>\ny\nGoal Reached\n"
        "<No Solution in Sub Search 1 at level 1 at Node #0,0>\n<End Sub Searches>}b<eos>",
        "0.0": "{Moving to Node #0,1\nCurrent State: 27:[22, 26, 22], Operations: ['53-31=22']}" + found,
        "0.1": "{Moving to Node #0,0\nCurrent State: 27:[22, 31, 27], Operations: ['53-26=27']}no<eos>",
    }
    row = layout(trace)
    child = next(segment for segment in row.segments if segment.thread == 1)
    assert (child.visible, row.positions[child.start]) == ((), 0)  # its node's state alone


OUTLINE = "<Outline>{}: o</Outline>".format
GOAL = "<Parallel><Goal>{}</Goal>".format
PLAN = "<guideline>{}</guideline>".format
WEAVE = "<Parallel><Outlines>{}</Outlines>".format
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


def test_a_tokenizer_that_cannot_write_a_tag_is_refused():
    poor = tokenizer([])
    poor.backend_tokenizer.model = type(poor.backend_tokenizer.model)({"<eos>": 0, "a": 1}, unk_token="<eos>")
    with pytest.raises(ModelError, match="cannot write <Think>, neither as a token nor as text: dialect 'multiverse'"):
        bind("multiverse", poor)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing", {}, "unknown dialect 'nothing'; there is spawn_join, apr, multiverse, npr, threadweaver, "),
        ("npr", {"paths": 2}, "dialect 'npr' has no option 'paths'; it has none"),
        ("spawn_join", {"join": 1}, "dialect 'spawn_join' has no option 'join'; it has prefix, join_on"),
        ("parallel_r1", {"words": 1}, "dialect 'parallel_r1' has no option 'words'; it has paths, view"),
        ("parathinker", {"paths": 9}, "dialect 'parathinker', option 'paths'=9: "),
        ("parallel_r1", {"view": "half"}, "dialect 'parallel_r1', option 'view'='half': "),
    ],
)
def test_an_unusable_choice_is_refused_in_one_line(name, options, message):
    with pytest.raises(InputError) as error:
        bind(name, tokenizer([]) if name != "spawn_join" else tokenizer_of([name]), **options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_dialect_of_another_package_is_found_and_a_broken_one_is_named(tmp_path, monkeypatch):
    info = tmp_path / "guests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guests\nVersion: 1.0\n")
    points = {"guest": "guests_of_ours:Guest", "lost": "no_such_module:Lost", "npr": "guests_of_ours:Guest"}
    lines = ["[parallel_reason.dialects]", *(f"{name} = {place}" for name, place in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    source = "from parallel_reason.dialects.npr import Npr\n\n\nclass Guest(Npr):\n    name = 'guest'\n"
    (tmp_path / "guests_of_ours.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    known.cache_clear()
    try:
        assert bind("guest", tokenizer([])).name == "guest"
        assert grafts("guest")  # known before it is bound
        assert find("npr").__name__ == "Npr"  # ours is never replaced
        with pytest.raises(InputError, match=r"^dialect 'lost' of guests cannot be loaded: No module named"):
            find("lost")
    finally:
        known.cache_clear()
