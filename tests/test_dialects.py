"""What holds of every dialect: on what models write, well-formed and spoilt, and on views that no run makes."""

import os
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.grammars import PROMPTS, tokenizer, tokenizer_of
from parallel_reason import layout
from parallel_reason.dialects import BUILT_IN, bind, find, grafts
from parallel_reason.dialects.base import Action, ChildResult, Insert, ThreadView
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.trace import from_json
from tests.chains import chain_engine
from tests.written import run, scripted, written

NAMES = [dialect.name for dialect in BUILT_IN]
COUNT = 50_000 if os.environ.get("ALL_SEQUENCES") else 400  # threads made, and as many mutated


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
