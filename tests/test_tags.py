"""Tags in tokens, compared with the text read character by character; and dialects whose tags are text."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.grammars import PROMPTS, tokenizer, tokenizer_of
from parallel_reason import Limits, Session
from parallel_reason.dialects import bind, find
from parallel_reason.dialects.base import ChildResult, Insert, Rewrite, Stops, ids_of
from parallel_reason.dialects.tagged import closes_and_copies, newline_after_each
from parallel_reason.dialects.tags import Tags
from parallel_reason.engines.scripted import ScriptedEngine
from tests.written import BLOCK, GOAL, OUTLINE, PLAN, WEAVE, written

LITERALS = find("multiverse").tags
SPLITS = ["></", ">\n", "o</Pa", "th>", "<G", "oal><", "</", "l>x"]
BYTES = {name: tokenizer(pieces) for name, pieces in {"letters": [], "straddling": SPLITS}.items()}
WHOLE = tokenizer(list(LITERALS.values()))
PIECES = [
    "<Goal>",
    "</Goal>",
    "<Path>",
    "</Path>",
    "<Parallel>",
    "</Parallel>",
    "<",
    ">",
    "/",
    "Goal",
    "Path",
    "a",
    "\n",
    "o",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def brute(text):
    """``(name, start, stop)`` in characters of every tag, from left to right."""
    found, place = [], 0
    while place < len(text):
        name = next((name for name, literal in LITERALS.items() if text.startswith(literal, place)), None)
        if name:
            found.append((name, place, place + len(LITERALS[name])))
        place += len(LITERALS[name]) if name else 1
    return found


@pytest.mark.parametrize("kind", list(BYTES))
@given(text=TEXTS)
def test_matches_are_the_tags_of_the_text_in_the_tokens_that_hold_them(kind, text):
    tokens = BYTES[kind]
    tags, ids = Tags(LITERALS, tokens), tokens.encode(text)
    owner = [number for number, token in enumerate(ids) for _ in tokens.decode([token])]
    matches = [(match.name, match.start, match.stop) for match in tags.matches(ids)]
    assert matches == [(name, owner[start], owner[stop - 1] + 1) for name, start, stop in brute(text)]
    assert tags.text_and_ends(ids) == (text, [len(tokens.decode(ids[: number + 1])) for number in range(len(ids))])
    ends = [name for name, _, stop in matches if stop == len(ids)]
    assert tags.tag_at_end(ids, LITERALS) == (ends[-1] if ends else None)
    assert tags.tag_at_end(ids, ["goal"]) == ("goal" if "goal" in ends else None)


@given(TEXTS)
def test_tags_that_are_tokens_are_the_same_tags(text):
    tags, letters = Tags(LITERALS, WHOLE), Tags(LITERALS, BYTES["letters"])
    ids, letter_ids = WHOLE.encode(text), BYTES["letters"].encode(text)
    assert [match.name for match in tags.matches(ids)] == [match.name for match in letters.matches(letter_ids)]
    assert all(match.stop == match.start + 1 for match in tags.matches(ids))
    assert tags.tag_at_end(ids, LITERALS) == letters.tag_at_end(letter_ids, LITERALS)
    assert tags.decode(list(tags.encode(text))) == text


def test_stops_are_tokens_if_every_tag_is_one_and_else_all_are_text():
    vocabulary = WHOLE.get_vocab()
    assert Tags(LITERALS, WHOLE).stops(["path_end"]) == Stops(ids=frozenset({vocabulary["</Path>"]}))
    some = tokenizer(["</Path>", "<Path>"])
    assert Tags(LITERALS, some).stops(["path_end"]) == Stops(texts=("</Path>",))
    names = [match.name for match in Tags(LITERALS, some).matches(some.encode("<Path>a<Goal></Path>"))]
    assert names == ["path", "goal", "path_end"]


WRITTEN = {
    "apr": {"0": ["a<Sub Searches>", BLOCK.removeprefix("<Calling Sub Searches>"), "b<eos>"], "0.0": ["x<eos>"]},
    "multiverse": {"0": [GOAL(OUTLINE(1) + OUTLINE(2)), "c<eos>"], "0.0": ["no</Path>"], "0.1": ["<Goal>o</Path>"]},
    "npr": {"0": [PLAN("<plan>1:o</plan>"), "c</takeaway>b<eos>"], "0.0": ["x>></step>"]},
    "threadweaver": {"0": [WEAVE(OUTLINE(1) + OUTLINE(2)), "</Parallel><eos>"], "0.0": ["x</Thread>"]},
    "parallel_r1": {"0": ["a<Parallel>", "s</Summary>b<eos>"], "0.0": ["o</Path>"], "0.1": ["<eos>"]},
    "parathinker": {"0": ["c</summary>"], "0.0": ["x</think1>"], "0.1": ["<</think2>"]},
    "ssft": {"0.0": ["x\\boxed{4}.<eos>"], "0.1": ["\\boxed{5}<eos>"], "0.3": ["\\boxed{ 5 }<eos>"]},
    "dc_cot": {"0": ["a<spawn_workers>", "b<eos>"], "0.0": ["x</worker_2>y</worker_1>"], "0.1": ["y<eos>"]},
    "async_think": {"0": ["<FORK-2> q</FORK-2>", "b<JOIN-2>", "c<ANSWER>d</ANSWER>"], "0.0": ["x<RETURN> y</RETURN>"]},
}  # fmt: skip
STRADDLING = ["></", ">\n", "o</Pa", "><", "</think2>\n", "o</", "es>"]


def run(name, texts, tokens):
    """The trace of a model that writes these texts."""
    prompt = PROMPTS.get(name, "ab")
    session = Session(ScriptedEngine.from_texts(tokens, texts), bind(name, tokens), limits=Limits(depth=3))
    (trace,) = asyncio.run(session.run(tokens.encode(prompt)))
    return trace


@pytest.mark.parametrize("pieces", [[], STRADDLING], ids=["characters", "straddling"])
@pytest.mark.parametrize("name", list(WRITTEN))
def test_tags_that_are_text_give_the_same_threads_as_tags_that_are_tokens(name, pieces):
    tokens = tokenizer([*pieces, "|", "\\", "{", "}"])
    trace, wanted = run(name, WRITTEN[name], tokens), run(name, WRITTEN[name], tokenizer_of([name]))
    assert [thread.text for thread in trace.threads] == [thread.text for thread in wanted.threads]
    assert written(trace, tokens) == written(wanted)
    for thread in trace.threads:  # sampled ids are those that the engine gave
        sampled = [i for span in thread.spans if span.origin == "sampled" for i in span.ids]
        given_ids = [i for text in WRITTEN[name].get(thread.label, []) for i in tokens.encode(text)]
        assert all(one == other for one, other in zip(sampled, given_ids, strict=False))


def test_what_a_token_that_is_taken_back_held_before_the_tag_is_written_again():
    tokens = tokenizer(["a<Sub"])
    texts = written(run("apr", {"0": ["a<Sub Searches>", "<eos>"]}, tokens), tokens)
    assert texts["0"] == "[a<Sub Searches>]{a<Calling Sub Searches>}<eos>"


def test_a_token_that_reaches_over_the_end_of_a_tag_stays_whole():
    tokens = tokenizer([">\n"])
    texts = {"0": [tokens.encode("a" + GOAL(OUTLINE(1)) + "\n")], "0.0": [tokens.encode("x</Path>\n")]}
    trace = run("multiverse", texts, tokens)
    assert trace.threads[1].text == "x</Path>\n"
    assert [thread.status for thread in trace.threads] == ["finished"] * 2


def test_empty_headers_and_closes_are_joined_as_nothing():
    """As from a dialect of another package, or a tokenizer without a token for the newline."""
    tokens = tokenizer([])
    tokens.encode = lambda text, **options: []
    children = [
        ChildResult((), [], [], ran=False, ended="lost"),
        ChildResult((Insert(()),), [], [], ran=False, ended="limit"),
        ChildResult((Insert(()), Insert(())), [5], [5], ran=True, ended="stop"),
    ]
    assert newline_after_each(Tags(LITERALS, tokens), children) == (Rewrite(), Rewrite(), Rewrite(0, (Insert(()),)))
    headers = [ids_of(child.header) for child in children]
    closes, copies = closes_and_copies(children, [Rewrite()] * 3, headers)
    assert closes == (Rewrite(),) * 3
    assert copies == (Insert((), copied=True), Insert((), copied=True), Insert((5,), copied=True))
    assert closes_and_copies([], [], []) == ((), ())


@pytest.mark.parametrize("name", ["multiverse", "npr", "threadweaver", "parallel_r1", "parathinker", "spawn_join"])
def test_the_vocabulary_is_read_once_however_many_threads_there_are(name, monkeypatch):
    """It takes milliseconds for every 10,000 tokens."""
    tokens, read = tokenizer_of([name]), []
    whole = tokens.get_vocab
    monkeypatch.setattr(tokens, "get_vocab", lambda: read.append(1) or whole())
    options = {"any_end": True} if name == "parathinker" else {}
    block = {"multiverse": GOAL(OUTLINE(1) + OUTLINE(2)), "npr": PLAN("<plan>1:o<plan>2:o"),
             "threadweaver": WEAVE(OUTLINE(1) + OUTLINE(2)), "parallel_r1": "<Parallel>", "parathinker": "",
             "spawn_join": "<spawn>m<sep>n</spawn>"}[name]  # fmt: skip
    session = Session(ScriptedEngine.from_texts(tokens, {"0": [block, "b<eos>"]}), bind(name, tokens, **options))
    traces = asyncio.run(session.run([[5]] * 10))
    assert sum(len(trace.threads) for trace in traces) > 20
    assert len(read) <= 6
