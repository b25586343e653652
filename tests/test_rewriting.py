"""The pure parts of rewriting: what a reply says, what lines become of it, and that no text is lost on the way."""

import json
import random
import re
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parallel_reason.dialects import bind
from parallel_reason.runtime.replay import parse, problems
from rl.rewriting import PIPELINES
from rl.rewriting.draft import Draft, Step, split_lines, tree
from rl.rewriting.multiverse import Goal, parse_goal, parse_passage
from rl.rewriting.nodes import Block, Passage, blocks, path_passages, plain, with_path_passages
from rl.rewriting.outlines import parse_outlines
from rl.rewriting.rewriter import distance, final_answer
from rl.rewriting.stage import ReplyError, without_thinking
from rl.rewriting.steps import check_grouped, check_parts, check_steps, parse_groups, parse_steps
from rl.rewriting.threadweaver import Edit, edited, flat, parse_edits, parse_verdicts
from tests.rewriting import tokenizer

WORDS = tokenizer()
PARSERS = [parse_steps, parse_groups, parse_goal, parse_outlines, parse_passage, parse_verdicts, parse_edits]
PIECES = [
    "S1: L1-L2: a", "S2.1: L3", "P1: [S1, S2+S3]", "P1: [", "]", "1: passed", "2: failed", "1: a", "Conclusion:",
    "none", "\n", "**", "- ", "L", ":", "9" * 5000, '[{"src": "a", "dest": "b"}]', '{"src": 1}', "[[", "```",
    "</think>", "é", "\0",
]  # fmt: skip
REPLY = st.one_of(
    st.text(), st.lists(st.sampled_from(PIECES)).map("".join), st.lists(st.sampled_from(PIECES)).map("\n".join)
)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
@settings(deadline=None)
@given(reply=REPLY)
@example(reply="[" * 100_000)
@example(reply="[" + "9" * 10_000 + "]")
def test_a_parser_reads_a_reply_or_says_what_is_wrong_with_it(parser, reply):
    with suppress(ReplyError):
        parser(without_thinking(reply))


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_steps_and_groups_are_read_however_they_are_decorated(seed):
    rng = random.Random(seed)
    draft = drawn(rng)
    steps = rng.choice([draft.steps, draft.parts or draft.steps])
    mark = rng.choice(["", "- ", "* ", "**", "# "])
    end = "**" if mark == "**" else ""
    said = [
        f"{mark}{step.name}{end}: L{step.first}{rng.choice(['-L', '-', ' - L'])}{step.last}: {step.what}"
        for step in steps
    ]
    assert parse_steps("\n".join(["Here they are:", *said, "", "That is all."])) == list(steps)
    groups = draft.groups or ((("S1",), ("S2", "S3")),)
    said = [f"{mark}P{n}{end}: [{', '.join('+'.join(m) for m in group)}]: why" for n, group in enumerate(groups, 1)]
    assert parse_groups("\n".join(said)) == list(groups)


def cut(rng, first, last, pieces):
    """So many ranges that cover the numbers from ``first`` to ``last``."""
    starts = sorted([first, *rng.sample(range(first + 1, last + 1), pieces - 1)])
    return list(zip(starts, [start - 1 for start in starts[1:]] + [last], strict=True))


def grouped(rng, names):
    """Groups of neighbours, at random."""
    groups, place = [], 0
    while place < len(names):
        members, group = rng.randint(2, 3), []
        for _ in range(members):
            taken = names[place : place + rng.randint(1, 2)]
            group += [tuple(taken)] if taken else []
            place += len(taken)
        if len(group) >= 2 and rng.random() < 0.7:
            groups.append(tuple(group))
    return groups


def drawn(rng):
    """A random draft up to its groups: lines of single words, each of which stands there once."""
    lines = [f"w{number}" + rng.choice(["\n", "\n\n"]) for number in range(rng.randint(2, 14))]
    steps = [
        Step(f"S{number}", first, last, "x")
        for number, (first, last) in enumerate(cut(rng, 1, len(lines), rng.randint(1, len(lines))), 1)
    ]
    parts = [
        Step(f"{step.name}.{number}", first, last, "y")
        for step in steps
        if step.last - step.first > 0 and rng.random() < 0.6
        for number, (first, last) in enumerate(
            cut(rng, step.first, step.last, rng.randint(2, step.last - step.first + 1)), 1
        )
    ]
    of = {step.name: [part.name for part in parts if part.name.startswith(step.name + ".")] for step in steps}
    part_groups = [group for names in of.values() for group in grouped(rng, names)]
    groups = grouped(rng, [step.name for step in steps])
    return Draft("p", tuple(lines), tuple(steps), tuple(parts), tuple(groups), tuple(part_groups))


def with_plans(nodes):
    """Outlines and conclusions of a word each."""
    return tuple(
        node if isinstance(node, Passage)
        else Block(tuple(map(with_plans, node.paths)), tuple(f"o{n}" for n in range(len(node.paths))), "c")
        for node in nodes
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_line_is_lost_or_moved_and_the_written_text_is_well_formed(seed):
    """Threads are found again in the text by the dialect's reader, each with the lines of its steps."""
    draft = drawn(random.Random(seed))
    assert check_steps(draft, 0, list(draft.steps)) is None
    assert check_parts(draft, 0, list(draft.parts)) is None
    assert check_grouped(draft.steps, list(draft.groups)) is check_grouped(draft.parts, list(draft.part_groups)) is None
    nodes = tree(draft)
    lines = re.findall(r"w\d+", "".join(draft.lines))
    assert plain(nodes).split() == lines
    inside = [name for group in draft.groups for member in group for name in member]
    blocked = {
        line for path in (path for place in blocks(nodes) for path in place.block.paths) for line in plain(path).split()
    }
    for step in draft.steps:
        if step.name in inside:
            assert set(draft.text(step).split()) <= blocked
    written = Draft("p", draft.lines, nodes=with_plans(nodes))
    text = PIPELINES["multiverse"].write(written, "A")
    dialect = bind("multiverse", WORDS)
    ids = WORDS.encode(text + "<eos>", add_special_tokens=False)
    assert problems(dialect, WORDS, [], ids) == []
    trace = parse(dialect, WORDS, [], ids)
    assert re.findall(r"w\d+", text) == lines
    expected = [re.findall(r"\bw\d+", plain(path)) for path in all_paths(nodes)]
    found = [below(trace, number) for number in range(1, len(trace.threads))]
    assert found == expected


def all_paths(nodes):
    for node in nodes:
        for path in node.paths if isinstance(node, Block) else ():
            yield path
            yield from all_paths(path)


def below(trace, number):
    """The lines of a thread and of those below it, in the order of the text."""
    label = trace.threads[number].label
    ids = [
        token
        for thread in trace.threads if thread.label == label or thread.label.startswith(label + ".")
        for span in thread.spans if span.origin == "sampled" for token in span.ids
    ]  # fmt: skip
    return sorted(re.findall(r"\bw\d+", WORDS.decode(ids)), key=lambda word: int(word[1:]))


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_every_passage_in_a_path_is_asked_for_once_and_put_back_in_its_place(seed):
    nodes = with_plans(tree(drawn(random.Random(seed))))
    passages = path_passages(nodes)
    assert with_path_passages(nodes, iter([passage.text for passage in passages])) == nodes
    again = with_path_passages(nodes, iter([passage.text.upper() for passage in passages]))
    upper = {word.lower() for word in plain(again).split() if word.startswith("W")}
    assert upper == {word for path in all_paths(nodes) for word in re.findall(r"\bw\d+", plain(path))}
    whole = plain(nodes)
    for passage in passages:
        assert passage.before.split() == [word for word in passage.before.split() if word in whole.split()]
        assert not set(passage.text.split()) & set(passage.before.split())


def test_threads_hold_text_alone_and_short_blocks_are_none():
    long, short = Passage("a" * 300 + "\n"), Passage("b\n")
    inner = Block(((long,), (long,)))
    nested = Draft("p", (), nodes=(Block(((inner,), (long,))),))
    [block] = flat(nested).nodes
    assert [len(plain(path)) for path in block.paths] == [602, 301]
    unbalanced = Draft("p", (), nodes=(Block(((inner,), (short,))),))
    found = flat(unbalanced).nodes
    assert found == (inner, short)


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ([(("S1",), ("S2",))], None),
        ([(("S1", "S2"), ("S3",))], None),
        ([(("S1",), ("S9",))], "a group names a step that is not there"),
        ([(("S1", "S2"),)], "a group has a single member"),
        ([(("S2",), ("S1",))], "a group is not of neighbouring steps in order"),
        ([(("S1",), ("S1",))], "a group is not of neighbouring steps in order"),
        ([(("S1",), ("S2",)), (("S2",), ("S3",))], "groups share a step"),
    ],
)
def test_groups_are_of_neighbouring_steps_each_in_one(groups, says):
    assert check_grouped([Step(f"S{n}", n, n) for n in (1, 2, 3)], groups) == says


def test_parts_cover_their_step_and_groups_stay_in_it():
    draft = Draft("p", tuple("abcd"), (Step("S1", 1, 2), Step("S2", 3, 4)))
    parts = [Step("S1.1", 1, 1), Step("S1.2", 2, 2), Step("S2.1", 3, 3), Step("S2.2", 4, 4)]
    assert check_parts(draft, 0, parts) is None
    assert check_parts(draft, 0, parts[:1]) == "a step has a single part"
    assert check_parts(draft, 0, [parts[1], parts[0]]) == "parts are not numbered in order"
    assert check_parts(draft, 0, [parts[0], Step("S1.2", 2, 3)]) == "steps do not end with the last line"
    assert check_grouped(parts, [(("S1.2",), ("S2.1",))]) == "a group has parts of several steps"


@settings(deadline=None)
@given(st.text(st.sampled_from("ab \n\t")))
def test_lines_are_numbered_without_the_blank_ones_and_joined_give_the_text(text):
    lines = split_lines(text)
    assert "".join(lines) == text.strip()
    assert [line.strip() for line in lines] == [line.strip() for line in text.split("\n") if line.strip()]


def levenshtein(one, other):
    """By its definition, cell after cell."""
    row = list(range(len(other) + 1))
    for number, char in enumerate(one, 1):
        before, row = row, [number]
        for place, with_ in enumerate(other, 1):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (char != with_)))
    return row[-1]


@settings(deadline=None)
@given(st.text(st.sampled_from("abc"), max_size=12), st.text(st.sampled_from("abc"), max_size=12))
def test_the_distance_is_levenshteins_over_the_longer_length(one, other):
    assert distance(one, other) == pytest.approx(levenshtein(one, other) / max(1, len(one), len(other)))


def test_blanks_count_once_in_a_distance():
    assert distance("a\n\nb ", "a b") == 0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{3}\nYes.", "so \\boxed{3}\nYes."),
        ("a\n#### 42", "42"),
        ("a\nThe answer is 42.", "42"),
        ("a\nFinal Answer: 4.5\n", "4.5"),
        ("a\n42", "42"),
    ],
)
def test_an_answer_is_looked_for_in_a_box_or_in_the_last_line(text, answer):
    assert final_answer(text) == answer


def test_edits_are_made_only_where_they_are_meant():
    assert edited("ab cd ab", [Edit("cd", "x")]) == "ab x ab"
    assert edited("ab cd ab", [Edit("ab", "x")]) is None
    assert edited("ab", [Edit("", "x")]) is None
    assert edited("ab", [Edit("c", "x")]) is None
    assert edited("abc", [Edit("a", "b"), Edit("bb", "")]) == "c"
    assert parse_edits('Here:\n```json\n[{"src": "a", "dest": ""}]\n```') == [Edit("a", "")]


def test_a_goal_has_outlines_and_a_conclusion_of_any_length():
    assert parse_goal("**1: a**\n2: b: c\n\n**Conclusion:** d\ne") == Goal(("a", "b: c"), "d\ne")
    assert parse_verdicts("1: passed: x\n- 2: Failed") == [True, False]


def test_every_stage_has_a_prompt_whose_example_it_can_read():
    for pipeline in PIPELINES.values():
        for stage in pipeline.stages:
            content = stage.prompt.messages[-1].content
            form = content.rpartition(":\n")[2] if stage.name != "multiverse_passages" else "a"
            stage.parse(form)
            assert json.dumps(stage.prompt.messages[0].content).count("problem") == 1
