"""Traces to flat text and back, on random runs and on public systems' own text; and what is wrong with a text."""

import asyncio

import pytest

from benchmarks.grammars import PROMPTS, tokenizer_of
from parallel_reason import Limits, Session, layout
from parallel_reason.dialects import BUILT_IN, bind
from parallel_reason.errors import InputError
from parallel_reason.runtime.replay import parse, problems
from parallel_reason.trace.flat import flatten
from tests.chains import chain_engine

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


def closed(trace, name):
    """Whether every thread came to its own end, and every child that a join sees closed its own tag."""
    own = all(thread.status == "finished" for thread in trace.threads)
    as_it_is = ("spawn_join", "apr", "ssft", "dc_cot", "async_think")  # an end of text stays in these
    return own and (name in as_it_is or all(t.stop_reason != "<eos>" for t in trace.threads[1:]))


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
        if closed(trace, name):
            again = parse(dialect, tokens, prompt, flatten(trace), model="m")
            assert content(again) == content(trace)
            assert again.ledger.model_dump(include=COUNTS) == trace.ledger.model_dump(include=COUNTS)
            assert (again.dialect, again.model, again.prompt) == (name, "m", tokens.decode(prompt))
            assert again.prompt_ids == prompt
            forked += bool(trace.root.forks)
    assert forked >= 5


MULTIVERSE = """<Think>
a
<Parallel>
<Goal>
<Outline>
1: p
</Outline>
<Outline>
2: q
</Outline>
</Goal>
<Path>
1: xx
<Parallel>
<Goal>
<Outline>
1.1: r
</Outline>
<Outline>
1.2: s
</Outline>
</Goal>
<Path>
1.1: uuuuu
</Path>
<Path>
1.2: v
</Path>
<Conclusion>
w
</Conclusion>
</Parallel>
y
</Path>
<Path>
2: z
</Path>
<Conclusion>
c
</Conclusion>
</Parallel>
b
</Think>

Answer: 4<eos>"""
NPR = """<guideline>
<plan>1: p</plan>
<plan>2: q</plan>
</guideline>
<step>
1: xxx
</step>
<step>
2: y
</step>
<takeaway>
c
</takeaway>
<guideline>
<plan>1: r</plan>
</guideline>
<step>
1: z
</step>
<takeaway>
d
</takeaway>
b<eos>"""
THREADWEAVER = """a
<Parallel>
<Outlines>
<Outline>1: p</Outline>
<Outline>2: q</Outline>
</Outlines>
<Thread>
1: xxx
</Thread><Thread>
2: y
</Thread>
</Parallel>
b<eos>"""
PARALLEL_R1 = (
    "a<Parallel><Path>\nx\n</Path><Path>\nyyy\n</Path><Path>\nz\n</Path></Parallel>\n<Summary>\nc\n</Summary>\nb<eos>"
)
PARATHINKER = "<think1>xx</think1><think2>y</think2><summary>c</summary>"


def read(name, text, **options):
    tokens = tokenizer_of([name])
    return parse(bind(name, tokens, **options), tokens, tokens.encode("Q"), tokens.encode(text))


def wrong(name, text, **options):
    """``(what, the text from the token on)`` of every problem."""
    tokens = tokenizer_of([name])
    ids = tokens.encode(text)
    found = problems(bind(name, tokens, **options), tokens, tokens.encode("Q"), ids)
    return [(problem.what, tokens.decode(ids[problem.at :])) for problem in found]


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


@pytest.mark.parametrize(
    ("name", "text", "tags", "threads"),
    [
        ("multiverse", MULTIVERSE, ["</Goal>", "<Path>", "</Path>", "<Conclusion>"], 5),
        ("npr", NPR, ["</guideline>", "<step>", "</step>", "<takeaway>"], 4),
        ("parallel_r1", PARALLEL_R1, ["<Parallel>", "<Path>", "</Path>", "</Parallel>"], 4),
    ],
)
def test_folded_text_of_a_public_system_stands_where_its_training_puts_it(name, text, tags, threads):
    tokens = tokenizer_of([name])
    trace, ids = read(name, text), tokens.encode("Q" + text)
    assert wrong(name, text) == []
    assert [thread.status for thread in trace.threads] == ["finished"] * threads
    fork, path, path_end, join = tokens.convert_tokens_to_ids(tags)
    row = layout(trace)
    got = list(zip(row.ids.tolist(), row.positions.tolist(), strict=True))
    wanted = list(zip(ids, folded(ids, fork, path, path_end, join), strict=True))

    blank = tokens.convert_tokens_to_ids("\n")

    def without_newlines(pairs):  # those between paths, and before the join: one of them at most is in a run
        before = [path, *(token for token, _ in pairs)]
        return [pair for pair, last in zip(pairs, before, strict=False) if (pair[0], last) != (blank, path_end)]

    assert without_newlines(got) == without_newlines(wanted)


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


def test_parathinker_text_is_read_with_as_many_thoughts_as_were_asked_for():
    trace = read("parathinker", PARATHINKER, paths=2)
    assert [thread.text for thread in trace.threads] == ["c</summary>", "xx</think1>", "y</think2>"]
    assert layout(trace).positions.tolist() == [0, *range(1, 5), *range(1, 4), *range(5, 8)]
    assert wrong("parathinker", PARATHINKER, paths=3) == [
        ("no child that begins '<think3>'", "<summary>c</summary>"),
    ]


GOAL = "<Parallel><Goal><Outline>1:o</Outline><Outline>2:o</Outline></Goal>"
END = "<Conclusion>\nc</Conclusion></Parallel>b<eos>"
PATHS = "<Path>\n1:x</Path><Path>\n2:y</Path>"


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("multiverse", GOAL + PATHS + END, []),
        ("multiverse", GOAL.replace("2:", "3:") + PATHS.replace("2:", "3:") + END, []),  # gaps are as they were written
        ("multiverse", "a<Path>b</Path>", []),  # a root that ends at </Path>, as in their engine
        ("multiverse", "a<Goal>", [("<Goal> is not closed", "<Goal>")]),
        ("multiverse", "a</Outline>b<eos>", [("</Outline> closes nothing", "</Outline>b<eos>")]),
        ("multiverse", "a<eos>b", [("text after the end", "b")]),
        (
            "multiverse",
            GOAL + PATHS.partition("</Path>")[0] + "</Path>" + END,
            [("no child that begins '<Path>\\n2:'", END)],
        ),
        (
            "multiverse",
            GOAL + "<Path>\n2:y</Path><Path>\n1:x</Path>" + END,
            [("a child that begins '<Path>\\n2:' out of order", "<Path>\n2:y</Path><Path>\n1:x</Path>" + END)],
        ),
        (
            "multiverse",
            GOAL + PATHS + "<Path>\n3:z</Path>" + END,
            [("'<Conclusion>' does not follow", "<Path>\n3:z</Path>" + END)],
        ),
        ("multiverse", GOAL + PATHS + "text" + END, [("'<Conclusion>' does not follow", "text" + END)]),
        (
            "multiverse",
            GOAL + PATHS + "</Parallel>b<eos>",
            [("'<Conclusion>' does not follow", "</Parallel>b<eos>")],
        ),
        (
            "multiverse",
            GOAL + "<Path>\n1:x</Path>text<Path>\n2:y</Path>" + END,
            [
                ("'<Conclusion>' does not follow", "text<Path>\n2:y</Path>" + END),
                ("no child that begins '<Path>\\n2:'", "text<Path>\n2:y</Path>" + END),
            ],
        ),
        (
            "multiverse",
            "<Parallel><Goal>o</Goal></Parallel><eos>",
            [("<Goal> without a numbered <Outline>", "</Goal></Parallel><eos>")],
        ),
        (
            "multiverse",
            GOAL + "<Path>\n1:x",
            [
                ("<Parallel> is not closed", GOAL + "<Path>\n1:x"),
                ("<Path> is not closed", "<Path>\n1:x"),
                ("the text ends before the join", "x"),
                ("no child that begins '<Path>\\n2:'", ""),
            ],
        ),
        ("npr", "<guideline><plan>1:o</plan></guideline><step>\n1:x</step><takeaway>\nc</takeaway><eos>", []),
        (
            "npr",
            "<guideline><plan>1:o</plan></guideline><step>\n7:x</step><takeaway>\nc</takeaway><eos>",
            [
                ("'<takeaway>' does not follow", "<step>\n7:x</step><takeaway>\nc</takeaway><eos>"),
                ("no child that begins '<step>\\n1:'", "<step>\n7:x</step><takeaway>\nc</takeaway><eos>"),
            ],
        ),
        ("npr", "<guideline>o</guideline>", [("<guideline> with 0 numbered plans, not 1 to 5", "</guideline>")]),
        ("threadweaver", THREADWEAVER, []),
        (
            "threadweaver",
            THREADWEAVER.replace("</Parallel>\n", ""),
            [("<Parallel> is not closed", THREADWEAVER.replace("</Parallel>\n", "").removeprefix("a\n"))],
        ),
        (
            "parallel_r1",
            "<Parallel><Path>x</Path></Parallel><Summary>c</Summary><eos>",
            [("no child that begins '<Path>'", "</Parallel><Summary>c</Summary><eos>")],
        ),
        (
            "parallel_r1",
            "<Parallel><Path>x</Path><Path>x</Path></Parallel>c<eos>",
            [
                ("'</Parallel>\\n<Summary>' does not follow", "</Parallel>c<eos>"),
                ("'</Summary>' does not follow", ""),
            ],
        ),
        (
            "spawn_join",
            "a</spawn>b<eos>",
            [("</spawn> closes nothing", "</spawn>b<eos>"), ("</spawn> without <spawn>", "</spawn>b<eos>")],
        ),
    ],
)  # fmt: skip
def test_a_problem_is_named_at_its_token(name, text, wanted):
    assert sorted(wrong(name, text)) == sorted(wanted)


def test_text_that_no_run_can_have_written_is_refused_by_its_first_token():
    with pytest.raises(InputError, match=r"'multiverse': token 25: '<Conclusion>' does not follow$"):
        read("multiverse", GOAL + PATHS + "text" + END)
    trace = read("multiverse", GOAL + PATHS)  # unfinished is not wrong
    assert (trace.status, len(trace.threads)) == ("length", 3)


def test_a_text_of_thousands_of_blocks_within_blocks_is_bounded():
    text = "<Goal><Outline>1:</Outline></Goal><Path>\n1:" * 1000
    assert "a fork without children" in [what for what, _ in wrong("multiverse", text)]
