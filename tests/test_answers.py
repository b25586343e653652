"""The answer of every dialect, by its own rule."""

import pytest

from benchmarks.grammars import PROMPTS, tokenizer_of
from parallel_reason.dialects import BUILT_IN, bind
from parallel_reason.dialects.answers import without_lone_ends
from parallel_reason.dialects.base import ThreadView
from tests.written import BLOCK, GOAL, OUTLINE, PLAN, WEAVE, scripted

TEXTS = {  # what a root writes in its requests, and the answer
    "spawn_join": (["<spawn>m</spawn>", "1</spawn>", " 2 <eos>"], "1</spawn> 2"),
    "apr": (["a\n" + BLOCK, "\nb<eos>"], "b"),
    "multiverse": ([GOAL(OUTLINE(1)), "c</Conclusion></Parallel> 4<eos>"], "c 4"),
    "npr": ([PLAN("<plan>1:o"), "c</takeaway> 4<eos>"], "c 4"),
    "threadweaver": ([WEAVE(OUTLINE(1)), "</Parallel>4<eos>"], None),  # the thread did not close
    "parallel_r1": (["<Parallel>", "c</Summary>4<eos>"], "c4"),
    "parathinker": (["c 4</summary>"], "c 4"),
    "dc_cot": (["<spawn_workers>", "b</think><answer>\n4\n</answer><eos>"], "4"),
    "async_think": (["b<ANSWER> 4 </ANSWER>"], "4"),
    "ssft": ([], None),  # see test_ssft.py
}


def test_every_dialect_is_tried():
    assert {*TEXTS} == {dialect.name for dialect in BUILT_IN}


@pytest.mark.parametrize("name", list(TEXTS))
def test_the_answer_follows_the_rule_of_the_dialect(name):
    root, wanted = TEXTS[name]
    trace = scripted(name, {"0": root})
    assert (trace.status, trace.answer) == ("finished", wanted)


@pytest.mark.parametrize("name", ["dc_cot", "async_think"])
def test_without_answer_tags_it_is_all_after_the_last_join(name):
    assert scripted(name, {"0": [" so 4 <eos>"]}).answer == "so 4"


def test_a_fork_that_cannot_be_read_stays_in_the_answer():
    trace = scripted("multiverse", {"0": [GOAL("o"), "b</Parallel></Conclusion><eos>"]})
    assert trace.ledger.malformed_forks == 1
    assert trace.answer == GOAL("o") + "b</Parallel>"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("a</b>c", "ac"),
        ("<b>a</b></b>", "<b>a</b>"),
        ("</d><b>a</d></b></b>", "<b>a</b>"),
        ("<b><b>a</b>", "<b><b>a</b>"),
        ("</e>", "</e>"),  # a tag that has no opening one
    ],
)
def test_a_closing_tag_without_an_opening_one_is_dropped(text, wanted):
    tags = {"b": "<b>", "b_end": "</b>", "d": "<d>", "d_end": "</d>", "e_end": "</e>"}
    assert without_lone_ends(text, tags) == wanted


@pytest.mark.parametrize("name", list(TEXTS))
def test_a_root_that_wrote_nothing_has_no_answer(name):
    dialect = bind(name, tokenizer_of([name]))
    ids = tokenizer_of([name]).encode(PROMPTS.get(name, "ab"))
    assert dialect.answer(ThreadView(0, ids, [], 0, 0, "stop", since_join=len(ids))) is None
