"""Traces to flat text and back, on random runs and on public systems' own text."""

import asyncio
import random
import re

import pytest

from benchmarks.grammars import PROMPTS, tokenizer, tokenizer_of
from parallel_reason import Limits, Session, layout
from parallel_reason.dialects import BUILT_IN, bind, find
from parallel_reason.errors import InputError
from parallel_reason.runtime.replay import parse, problems
from parallel_reason.trace.flat import flatten
from parallel_reason.trace.place import placed
from tests.chains import chain_engine
from tests.texts import END, GOAL, MULTIVERSE, NPR, PARALLEL_R1, PARATHINKER, PATHS, THREADWEAVER, read, wrong

NAMES = [dialect.name for dialect in BUILT_IN]
LIMITS = Limits(depth=3, children=8, forks=6, tokens=1500, tokens_per_thread=200)
UNREAD = {"prefilled_tokens", "cached_tokens", "recomputed_tokens", "queued_s", "running_s", "waiting_s", "spans"}
OF_A_RUN = {"logprobs", "top_logprobs", "started_s", "ended_s", "policy_version"}
COUNTS = {"sampled_tokens", "critical_path_tokens", "forks", "threads"}


def content(trace):
    """The threads without log-probs, counts and times."""
    return [
        (thread.model_dump(exclude=UNREAD), [span.model_dump(exclude=OF_A_RUN) for span in thread.spans])
        for thread in trace.threads
    ]


AS_IT_IS = ("spawn_join", "apr", "ssft", "dc_cot", "async_think")  # an end of text stays in the children of these


def closed(trace, name, tokens):
    """Whether every thread came to its own end and wrote no tag that begins a child, and every child that a join sees
    closed its own tag."""
    begins = {tokens.convert_tokens_to_ids(find(name).tags[tag]) for tag in find(name).form.opens_child}
    wrote = [
        token for thread in trace.threads for span in thread.spans if span.origin == "sampled" for token in span.ids
    ]
    own = all(thread.status == "finished" for thread in trace.threads) and begins.isdisjoint(wrote)
    return own and (name in AS_IT_IS or all(t.stop_reason != "<eos>" for t in trace.threads[1:]))


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in NAMES), ("parallel_r1", {"view": "seen"}), ("parathinker", {"paths": 2})],
)
def test_flat_text_gives_back_the_trace(name, options):
    tokens = tokenizer_of([name])
    dialect, forked = bind(name, tokens, **options), 0
    for seed in range(60):
        engine = chain_engine(tokens, name, seed, spoil=seed % 2 / 100)
        prompt = tokens.encode(PROMPTS.get(name, "ab"), add_special_tokens=False)
        [trace] = asyncio.run(Session(engine, dialect).run(prompt, limits=LIMITS))
        if closed(trace, name, tokens):
            again = parse(dialect, tokens, prompt, flatten(trace), model="m")
            assert content(again) == content(trace)
            assert again.ledger.model_dump(include=COUNTS) == trace.ledger.model_dump(include=COUNTS)
            assert (again.dialect, again.model, again.prompt) == (name, "m", tokens.decode(prompt))
            assert again.prompt_ids == prompt
            forked += bool(trace.root.forks)
    assert forked >= 5


def folded(ids, fork, path, path_end, join):
    """The positions of the public training code: every path one after the fork, the join one after the longest path."""
    found, place, open_forks = [], 0, []
    for token in ids:
        if token == path:
            place = open_forks[-1][0] + 1
        elif token == join:
            start, longest = open_forks.pop()
            place = start + longest + 1
        found.append(place)
        if token == path_end:
            open_forks[-1][1] = max(open_forks[-1][1], place - open_forks[-1][0])
        elif token == fork:
            open_forks.append([place, 0])
        place += 1
    return found


FOLDED = [
    ("multiverse", MULTIVERSE, ["</Goal>", "<Path>", "</Path>", "<Conclusion>"], 5),
    ("npr", NPR, ["</guideline>", "<step>", "</step>", "<takeaway>"], 4),
    ("parallel_r1", PARALLEL_R1, ["<Parallel>", "<Path>", "</Path>", "</Parallel>"], 4),
]


@pytest.mark.parametrize(("name", "text", "tags", "threads"), FOLDED)
@pytest.mark.parametrize("blank", [None, "", " ", "\n\n", "  \n"])
def test_folded_text_of_a_public_system_stands_where_its_training_puts_it(name, text, tags, threads, blank):
    """Whatever blanks stand between its tags: they are kept, and move nothing but what a thread writes itself."""
    if blank is not None:  # between a closing tag and the next tag
        text = re.sub(r"(</\w+>)\s*(?=<\w)", rf"\1{blank}", text)
        text = text.replace("<Parallel><Path>", f"<Parallel>{blank}<Path>")
    tokens = tokenizer_of([name])
    trace, ids = read(name, text), tokens.encode("Q" + text)
    assert wrong(name, text) == []
    assert [thread.status for thread in trace.threads] == ["finished"] * threads
    fork, path, path_end, join = tokens.convert_tokens_to_ids(tags)
    row = layout(trace)
    assert row.ids.tolist() == ids
    assert row.positions.tolist() == folded(ids, fork, path, path_end, join)


@pytest.mark.parametrize(("name", "text", "tags", "threads"), FOLDED)
def test_a_trace_can_be_placed_at_any_positions_and_nothing_else_changes(name, text, tags, threads):
    trace, rng = read(name, text), random.Random(0)
    row = layout(trace)
    positions = [position if rng.random() < 0.7 else rng.randrange(99) for position in row.positions.tolist()]
    moved = placed(trace, positions)
    again = layout(moved)
    assert again.positions.tolist() == positions
    assert again.ids.tolist() == row.ids.tolist()
    assert (again.mask() == row.mask()).all()
    assert flatten(moved) == flatten(trace)
    assert content(placed(trace, row.positions.tolist())) == content(trace)


def test_parallel_r1_rows_can_stand_where_the_released_supervised_training_puts_them():
    """The last <Parallel> that a prompt quotes opens a block that ends at the first </Parallel> of the text."""
    prompt, text = "a<Parallel>b", "c<Parallel>\n<Path>x</Path>\n<Path>yyy</Path></Parallel>\n<Summary>s</Summary><eos>"
    tokens = tokenizer_of(["parallel_r1"])
    ids = tokens.encode(prompt), tokens.encode(text)
    trace = parse(bind("parallel_r1", tokens, positions="sft"), tokens, *ids)
    row = layout(trace)
    assert row.ids.tolist() == ids[0] + ids[1]
    before, paths = [0, 1, 0, 0, 0, 0], [2, 3, 4, 0, 2, 3, 4, 5, 6]
    assert row.positions.tolist() == [*before, *paths, *range(7, 13)]
    plain = parse(bind("parallel_r1", tokens), tokens, *ids)
    assert layout(plain).positions.tolist() == [*range(6), 5, 6, 7, 8, 5, 6, 7, 8, 9, *range(10, 16)]


def test_what_a_run_would_write_is_not_sampled():
    tokens = tokenizer_of(["npr"])
    row = layout(read("npr", NPR))
    injected = tokens.decode(row.ids[~row.sampled].tolist())
    assert injected == "Q\n<step>\n1:\n<step>\n2:\n<takeaway>\n\n<step>\n1:\n<takeaway>\n"


def test_threadweaver_is_plain_text_for_who_goes_on_after_it():
    tokens = tokenizer_of(["threadweaver"])
    assert wrong("threadweaver", THREADWEAVER) == []
    trace = read("threadweaver", THREADWEAVER)
    first, second = trace.children(trace.root.forks[0])
    assert [thread.text for thread in (first, second)] == [" xxx\n</Thread>", " y\n</Thread>"]
    row = layout(trace)
    seen = row.mask()[-1]
    assert tokens.decode(row.ids[seen].tolist()) == "Q" + THREADWEAVER
    assert row.positions[seen].tolist() == list(range(seen.sum()))
    header = tokens.encode("\n<Thread>\n2:")
    assert second.spans[0].ids == header  # the second begins where the first does, and is trained there
    starts = [row.positions[segment.start] for segment in row.segments if segment.thread in (1, 2)]
    assert starts[0] == starts[2]
    assert flatten(trace) == tokens.encode(THREADWEAVER)


def test_parathinker_text_says_itself_how_many_thoughts_it_has_and_its_end_of_text_is_kept():
    trace = read("parathinker", PARATHINKER + "<eos>", paths=3)
    assert [thread.text for thread in trace.threads] == ["c</summary>", "xx</think1>", "y</think2>"]
    assert layout(trace).positions.tolist() == [0, *range(1, 5), *range(1, 4), *range(5, 9)]
    assert wrong("parathinker", PARATHINKER) == wrong("parathinker", PARATHINKER + "<eos>") == []


@pytest.mark.parametrize("first", [1, 7])
def test_parathinker_thoughts_may_be_renamed_and_keep_their_names(first):
    """The collator renames two thoughts of a row to 7 and 8, wherever they stand."""
    text = PARATHINKER.replace("think1", f"think{first}").replace("think2", "think8")
    trace = read("parathinker", text)
    assert wrong("parathinker", text) == []
    assert [thread.text for thread in trace.threads[1:]] == [f"xx</think{first}>", "y</think8>"]
    assert flatten(trace) == tokenizer_of(["parathinker"]).encode(text)
    assert layout(trace).positions.tolist() == [0, *range(1, 5), *range(1, 4), *range(5, 8)]


@pytest.mark.parametrize("blank", ["", "\n", "\n\n"])
def test_parallel_r1_seen_is_plain_text_with_its_blanks(blank):
    text = PARALLEL_R1.replace("</Path>", "</Path>" + blank).replace("\n<Summary>", blank + "<Summary>")
    tokens = tokenizer_of(["parallel_r1"])
    trace = read("parallel_r1", text, view="seen")
    row = layout(trace)
    seen = row.mask()[-1]
    assert tokens.decode(row.ids[seen].tolist()) == "Q" + text
    assert row.positions[seen].tolist() == list(range(seen.sum()))
    assert flatten(trace) == tokens.encode(text)


def test_threadweaver_leaves_out_blanks_between_threads_as_its_trie_does():
    spaced = THREADWEAVER.replace("</Thread><Thread>", "</Thread>\n<Thread>").replace(
        "\n<Thread>\n1:", "\n\n<Thread>1:"
    )
    trace = read("threadweaver", spaced)
    dropped = spaced.replace("</Thread>\n<Thread>", "</Thread><Thread>")
    tokens = tokenizer_of(["threadweaver"])
    assert flatten(trace) == tokens.encode(dropped)
    assert trace.threads[1].spans[0].ids == tokens.encode("\n\n<Thread>1:")
    assert trace.threads[2].spans[0].ids == tokens.encode("\n\n<Thread>\n2:")  # a branch of the trie has the same head


STATE = (
    "Moving to Node #0\nCurrent State: 6:[1, 2, 4], Operations: []\nGenerated Node #0,1: 6:[1, 6] Operation: 4+2=6\n"
)
ASKS = "<Calling Sub Searches>\n<Start Sub Search 0 at level 1> Moving to Node #0,1\n<End Calling Sub Searches>\n<eos>"
JOINED = (
    "<Sub Searches>\n<Goal Reached in Sub Search 0 at level 1 at Node #0,1>\nMoving to Node #0,1\n"
    "6,6 equal: Goal Reached\n"
    "<No Solution in Sub Search 1 at level 1 at Node #0,0>\n<End Sub Searches>\n"
)


@pytest.mark.parametrize("tags", [["apr"], []])
@pytest.mark.parametrize("row", [STATE + ASKS, STATE + JOINED + "6,6<eos>", STATE + JOINED + STATE + JOINED + ASKS])
def test_apr_rows_hold_one_call_each_and_joins_that_nobody_sampled(row, tags):
    tokens = tokenizer_of(tags) if tags else tokenizer([])
    ids, dialect = tokens.encode(row), bind("apr", tokens)
    assert problems(dialect, tokens, [], ids) == []
    trace = parse(dialect, tokens, [], ids)
    assert flatten(trace) == ids
    injected = [tokens.decode(span.ids) for span in trace.root.spans if span.origin == "injected"]
    assert injected == [JOINED] * row.count("<Sub Searches>")
    assert layout(trace).positions.tolist() == list(range(len(ids)))


def test_npr_text_may_have_more_plans_than_a_run_forks():
    plans = "".join(f"<plan>{k}: p</plan>" for k in range(1, 7))
    steps = "".join(f"<step>\n{k}: x</step>" for k in range(1, 7))
    text = f"<guideline>{plans}</guideline>{steps}<takeaway>\nc</takeaway><eos>"
    assert wrong("npr", text) == []
    assert len(read("npr", text).threads) == 7
    assert read("npr", f"<guideline>{plans}</guideline><eos>").root.malformed[0].reason.startswith("<guideline> with 6")


def test_text_that_no_run_can_have_written_is_refused_by_its_first_token():
    with pytest.raises(InputError, match=r"'multiverse': token 25: '<Conclusion>' does not follow$"):
        read("multiverse", GOAL + PATHS + "text" + END)
    trace = read("multiverse", GOAL + PATHS)  # unfinished is not wrong
    assert (trace.status, len(trace.threads)) == ("length", 3)


@pytest.mark.parametrize(
    "text",
    [
        THREADWEAVER.replace("</Parallel>", "<Thread>\n3: z</Thread></Parallel>"),  # one too many
        THREADWEAVER.replace("<Outline>2: q", "<Outline>q"),  # one without a number
        THREADWEAVER.replace("2:", "1:"),  # a number twice
        "<Parallel><Thread>1: x</Thread></Parallel><eos>",
    ],
)
def test_a_thread_that_no_outline_numbers_is_never_read_as_text(text):
    with pytest.raises(InputError, match="<Thread> begins no child of a fork"):
        read("threadweaver", text)
    assert any("<Thread>" in what or "<Outline>" in what for what, _ in wrong("threadweaver", text)[:1])


def test_a_text_of_hundreds_of_blocks_within_blocks_is_bounded():
    text = "<Goal><Outline>1:</Outline></Goal><Path>\n1:" * 300
    assert "a fork without children" in [what for what, _ in wrong("multiverse", text)]
