"""Tags that a model quotes are text, in every dialect, as tokens and as text, in runs and in replays."""

import asyncio

import pytest

from benchmarks.grammars import PROMPTS, tokenizer
from parallel_reason import Session
from parallel_reason.dialects import BUILT_IN, bind
from parallel_reason.dialects.quotes import is_quoted
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.runtime.replay import parse, problems
from parallel_reason.trace.flat import flatten
from tests.written import BLOCK, GOAL, OUTLINE, PLAN, WEAVE

QUOTED = [
    "`", "say `", "``a ` ", "```\n", "```python\nx = 1\n", "~~~\n", "  1. so\n     ```\n", "> ```\n", "```\na\n``\n",
    "````\n```\n", "~~~\n```\n", "``` x", '"', 'the "', "('", "it's '", "“", "so „", "« so «", '"yes" "', "tag='",
    'is:"', "— “", "\n'", '"\'', "a\n\"",
]  # fmt: skip
PLAIN = [
    "", "don't", "the dogs'", '"yes"', '"yes" ', "'so'.'", "„so“", "»so«", "“yes,”", "f'", "f''", "`a` ", "``a`` ",
    "```\na\n```\n", "```\na\n```", "```\na\n  ```  \n", "~~~\na\n~~~~\n", "```a``` ", "``so'' ", 'pipe of 5"',
    "a `b\n", '"a ',
]  # fmt: skip


@pytest.mark.parametrize("before", QUOTED)
def test_a_tag_is_quoted_after(before):
    assert is_quoted(before)


@pytest.mark.parametrize("before", PLAIN)
def test_a_tag_is_meant_after(before):
    assert not is_quoted(before)


CHARACTERS = ["`", "~", '"', "|", "\\", "{", "}"]
KINDS = {
    "tokens": tokenizer([*CHARACTERS, *(tag for dialect in BUILT_IN for tag in dialect.tags.values())]),
    "text": tokenizer(CHARACTERS),
}
CASES = {  # what a root writes first, the tag at which it forks or ends, and what follows the tag
    "spawn_join": ("<spawn>m", "</spawn>", ""),
    "apr": ("a\n" + BLOCK.partition("<End")[0], "<End Calling Sub Searches>", "<eos>"),
    "multiverse": (GOAL(OUTLINE(1)).removesuffix("</Goal>"), "</Goal>", ""),
    "npr": (PLAN("<plan>1:o").removesuffix("</guideline>"), "</guideline>", ""),
    "threadweaver": (WEAVE(OUTLINE(1)).removesuffix("</Outlines>"), "</Outlines>", ""),
    "parallel_r1": ("a", "<Parallel>", ""),
    "dc_cot": ("a", "<spawn_workers>", ""),
    "async_think": ("<FORK-1>q", "</FORK-1>", ""),
    "parathinker": ("a", "</summary>", ""),
}


def run(name, kind, texts):
    """The trace of a model that writes these texts, which comes back from its flat text."""
    tokens = KINDS[kind]
    dialect, prompt = bind(name, tokens), tokens.encode(PROMPTS.get(name, "ab"))
    (trace,) = asyncio.run(Session(ScriptedEngine.from_texts(tokens, texts), dialect).run(prompt))
    assert not trace.errors
    return trace, lambda: parse(dialect, tokens, prompt, flatten(trace))


def test_every_dialect_that_stops_at_a_tag_is_tried():
    assert {*CASES} == {dialect.name for dialect in BUILT_IN} - {"ssft"}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("mark", ["`", '"', "```\n", "~~~\n", "'"])
def test_a_quoted_tag_is_text_and_the_same_tag_without_quotes_is_not(name, kind, mark):
    if name == "spawn_join" and kind == "text":
        pytest.skip("its tags are tokens")
    if name == "apr" and mark in ("```\n", "~~~\n"):
        pytest.skip("its block is many lines")
    first, tag, last = CASES[name]
    closing = mark if len(mark) == 1 else "\n" + mark
    mark = " " + mark if len(mark) == 1 else "\n" + mark
    quoted, again = run(name, kind, {"0": [f"{first}{mark}{tag}{closing if not last else ''}{last or 'b<eos>'}"]})
    meant, _ = run(name, kind, {"0": [f"{first} don't{tag}{last}", "b<eos>"]})
    if name == "parathinker":
        assert (quoted.stop_reason, meant.stop_reason) == ("<eos>", "</summary>")
        return
    assert not quoted.root.forks
    assert not quoted.root.malformed
    assert quoted.status == "finished"
    assert quoted.text.endswith((closing + "b") if not last else tag)
    assert meant.root.forks
    assert not again().root.forks


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("name", "root", "end"),
    [
        ("multiverse", GOAL(OUTLINE(1)), "</Path>"),
        ("npr", PLAN("<plan>1:o"), "</step>"),
        ("threadweaver", WEAVE(OUTLINE(1)), "</Thread>"),
        ("parallel_r1", "<Parallel>", "</Path>"),
        ("parathinker", "", "</think1>"),
        ("dc_cot", "<spawn_workers>", "</worker_1>"),
        ("async_think", "<FORK-1>q</FORK-1>", "</RETURN>"),
    ],
)
def test_a_child_goes_on_after_its_own_closing_tag_in_quotes(name, root, end, kind):
    texts = {"0": [root, "<JOIN-1>b<eos>"] if name == "async_think" else [root, "b<eos>"] if root else ["b<eos>"]}
    trace, _ = run(name, kind, texts | {"0.0": [f"x `{end}` is the end{end}"]})
    assert trace.threads[1].text == f"x `{end}` is the end{end}"
    assert trace.threads[1].stop_reason == end


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_quoted_tag_is_neither_a_problem_of_a_text_nor_of_a_later_fork(kind):
    tokens = KINDS[kind]
    block = PLAN("<plan>1:o</plan>") + "<step>\n1:x</step><takeaway>\nc</takeaway>"
    text = f'Tags are `<step>`, "</step>" and `</plan>`: {block}b<eos>'
    assert problems(bind("npr", tokens), tokens, [5], tokens.encode(text)) == []
    assert problems(bind("npr", tokens), tokens, [5], tokens.encode(text.replace("`", ""))) != []


INSIDE = {  # what a root writes with tags of its block quoted in it, and the text that each child begins with
    "spawn_join": ("<spawn>m `<spawn>` or `<sep>` and `</spawn>` n<sep>o</spawn>",
                   ["<thread>m `<spawn>` or `<sep>` and `</spawn>` n", "<thread>o"]),
    "apr": (BLOCK.replace("<Start", "`<Calling Sub Searches>`\n<Start", 1), [None, None]),
    "multiverse": (GOAL("`<Goal>` <Outline>1: `<Outline>2: o</Outline>`</Outline> ``<Goal>``"), ["<Path>\n1:"]),
    "npr": (PLAN("`<guideline>` <plan>1: `<plan>2:o</plan>` \"</step>\"</plan>"), ["<step>\n1:"]),
    "threadweaver": (WEAVE(f"`<Outlines>` {OUTLINE(2)} `{OUTLINE(3)}`"), ["\n<Thread>\n2:"]),
    "async_think": ("<FORK-1>q `<FORK-1>` `</FORK-1>` r</FORK-1>", ["q `<FORK-1>` `</FORK-1>` r\n"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", list(INSIDE))
def test_a_tag_that_is_quoted_in_a_block_is_text_of_the_block(name, kind):
    if name == "spawn_join" and kind == "text":
        pytest.skip("its tags are tokens")
    block, begins = INSIDE[name]
    root = [block, "<JOIN-1>b<eos>" if name == "async_think" else "b<eos>"]
    trace, again = run(name, kind, {"0": root, "0.0": ["x</Thread>" if name == "threadweaver" else "x<eos>"]})
    assert trace.ledger.malformed_forks == 0
    read = again() if name != "apr" else trace  # whose text has the joins alone
    for found in (trace, read):
        headers = [KINDS[kind].decode(thread.spans[0].ids) for thread in found.threads[1:]]
        assert len(headers) == len(begins)
        assert all(begin in (None, header) for header, begin in zip(headers, begins, strict=True))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("name", "root", "child", "join"),
    [
        ("spawn_join", ["<spawn>m</spawn>"], "<return>a `<return>` b</thread>", "<join>a `<return>` b</join>"),
        ("async_think", ["<FORK-1>q</FORK-1>", "<JOIN-1>"], "<RETURN>a `<RETURN>` `</RETURN>` b</RETURN>",
         "a `<RETURN>` `</RETURN>` b</JOIN-1>"),
    ],
)  # fmt: skip
def test_a_child_may_quote_the_tag_with_which_it_returns(name, root, child, join, kind):
    if name == "spawn_join" and kind == "text":
        pytest.skip("its tags are tokens")
    trace, _ = run(name, kind, {"0": [*root, "b<eos>"], "0.0": [child]})
    assert join in [KINDS[kind].decode(span.ids) for span in trace.root.spans if span.origin == "injected"]
    lost, _ = run(name, kind, {"0": [*root, "b<eos>"], "0.0": [f"`{child.partition('>')[0]}>` b<eos>"]})
    assert not any("`" in KINDS[kind].decode(span.ids) for span in lost.root.spans if span.origin == "injected")


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_summary_goes_on_after_its_own_closing_tag_in_quotes(kind):
    texts = {"0": ["<Parallel>", "c `</Summary>` d<Parallel>", "e<eos>", "f<Parallel>", "g</Summary><eos>"]}
    trace, _ = run("parallel_r1", kind, texts)
    assert len(trace.root.forks) == 2  # the first end of text closed the summary, so that the third <Parallel> forks


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("async_think", "<ANSWER>`<ANSWER>` 4 `</ANSWER>` 5</ANSWER>", "`<ANSWER>` 4 `</ANSWER>` 5"),
        ("dc_cot", "`<answer>` <answer>4</answer><eos>", "4"),
        ("multiverse", "see `</Path>` or </Conclusion>4<eos>", "see `</Path>` or 4"),
    ],
)
def test_quoted_tags_are_text_of_the_answer(name, text, answer, kind):
    assert run(name, kind, {"0": [text]})[0].answer == answer


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_validator_takes_quoted_tags_in_a_block_for_text(kind):
    tokens = KINDS[kind]
    block = PLAN("<plan>1: `<guideline>` or `</plan>`</plan>") + "<step>\n1:x `<step>`</step><takeaway>\nc</takeaway>"
    assert problems(bind("npr", tokens), tokens, [5], tokens.encode(f"{block}b<eos>")) == []
    assert problems(bind("npr", tokens), tokens, [5], tokens.encode(f"{block}b<eos>".replace("`", ""))) != []


def test_what_the_prompt_quotes_does_not_count():
    tokens = KINDS["tokens"]
    engine = ScriptedEngine.from_texts(tokens, {"0": ["<Parallel>", "b<eos>"]})
    (trace,) = asyncio.run(Session(engine, bind("parallel_r1", tokens)).run(tokens.encode("```\nQ `<Parallel>` '")))
    assert len(trace.root.forks) == 1


def test_what_a_child_quotes_does_not_count_for_its_parent():
    tokens = KINDS["tokens"]
    block = WEAVE(OUTLINE(1))
    texts = {"0": [f"a {block}", f"</Parallel> {block}", "b<eos>"], "0.0": ["x `a</Thread>", "b\n</Thread>"]}
    (trace,) = asyncio.run(Session(ScriptedEngine.from_texts(tokens, texts), bind("threadweaver", tokens)).run([5]))
    assert len(trace.root.forks) == 2
