"""What is wrong with a text: named at its token, held to the public checkers, and the broken tag first."""

import random
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from benchmarks.grammars import tokenizer_of
from parallel_reason.dialects import bind
from parallel_reason.runtime.replay import problems
from tests.texts import END, GOAL, MULTIVERSE, NPR, PARALLEL_R1, PARATHINKER, PATHS, THREADWEAVER, wrong

TEXTS = {
    "multiverse": MULTIVERSE, "npr": NPR, "threadweaver": THREADWEAVER, "parallel_r1": PARALLEL_R1,
    "parathinker": PARATHINKER,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("multiverse", GOAL + PATHS + END, []),
        ("multiverse", GOAL.replace("2:", "3:") + PATHS.replace("2:", "3:") + END, []),  # gaps are as they were written
        (
            "multiverse",
            "a<Path>b</Path>",
            [
                ("<Path> outside of all tags, not in <Parallel>", "<Path>b</Path>"),
                ("<Path> begins no child of a fork", "<Path>b</Path>"),
            ],
        ),
        (
            "multiverse",
            "a<Goal>",
            [("<Goal> outside of all tags, not in <Parallel>", "<Goal>"), ("<Goal> is not closed", "<Goal>")],
        ),
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
            [
                ("</Parallel> where <Conclusion> is due in <Parallel>", "</Parallel>b<eos>"),
                ("'<Conclusion>' does not follow", "</Parallel>b<eos>"),
            ],
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
            [
                ("</Goal> where <Outline> is due in <Goal>", "</Goal></Parallel><eos>"),
                ("</Parallel> where <Path> is due in <Parallel>", "</Parallel><eos>"),
                ("<Goal> without a numbered <Outline>", "</Goal></Parallel><eos>"),
            ],
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
        (
            "npr",
            "<guideline>o</guideline>",
            [
                ("text in <guideline>, beside <plan>", "o</guideline>"),
                ("</guideline> where <plan> is due in <guideline>", "</guideline>"),
                ("the end where <step> is due outside of all tags", ""),
                ("<guideline> with 0 numbered plans, not 1 to 5", "</guideline>"),
            ],
        ),
        ("threadweaver", THREADWEAVER, []),
        (
            "threadweaver",
            THREADWEAVER.replace("</Parallel>\n", ""),
            [
                ("<Parallel> is not closed", THREADWEAVER.replace("</Parallel>\n", "").removeprefix("a\n")),
                ("text in <Parallel>, beside <Outlines> or <Thread> or <Conclusion>", "\nb<eos>"),
            ],
        ),
        (
            "parallel_r1",
            "<Parallel><Path>x</Path></Parallel><Summary>c</Summary><eos>",
            [("</Parallel> where <Path> is due in <Parallel>", "</Parallel><Summary>c</Summary><eos>")],
        ),
        (
            "parallel_r1",
            "<Parallel><Path>x</Path><Path>x</Path></Parallel>c<eos>",
            [
                ("'</Parallel>\\n<Summary>' does not follow", "</Parallel>c<eos>"),
                ("the end where <Summary> is due outside of all tags", ""),
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


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("multiverse", PATHS + END, "<Path> outside of all tags, not in <Parallel>"),
        ("npr", "<takeaway>\nc</takeaway><eos>", "<takeaway> where <guideline> is due outside of all tags"),
        ("npr", NPR.replace("</plan>\n<plan>", "</plan>and<plan>", 1), "text in <guideline>, beside <plan>"),
        ("parallel_r1", "a<Summary>c</Summary><eos>", "<Summary> where <Parallel> is due outside of all tags"),
        (
            "parallel_r1",
            PARALLEL_R1.replace("b<eos>", "<Summary>d</Summary><eos>"),
            "<Summary> where <Parallel> is due",
        ),
        ("threadweaver", THREADWEAVER.replace("</Thread>\n</", "</Thread>\nso</"), "text in <Parallel>, beside"),
        ("threadweaver", THREADWEAVER.replace("<Outlines>", "so<Outlines>"), "text in <Parallel>, beside"),
        (
            "threadweaver",
            THREADWEAVER.replace("xxx", "<Parallel></Parallel>"),
            "<Parallel> in <Thread>, not in <Think>",
        ),
        ("threadweaver", THREADWEAVER.replace("2: y", "2: "), "<Thread> without its number and text, 2: ..."),
        ("threadweaver", THREADWEAVER.replace("2: q", "3: q"), "<Outline> without its number and text, 2: ..."),
        (
            "threadweaver",
            re.sub(r"<(/?)Outline>(1: p)<(/?)Outline>", r"</Outline>\2<Outline>", THREADWEAVER),
            "</Outline> closes nothing",
        ),
        (
            "threadweaver",
            re.sub(r"<(/?)Outline>(2: q)<(/?)Outline>", r"</Outline>\2<Outline>", THREADWEAVER),
            "</Outline>",
        ),
    ],
)
def test_what_the_public_checkers_refuse_is_refused_and_named_first(name, text, wanted):
    assert wrong(name, text)[0][0].startswith(wanted)


def of_multiverse(text: str) -> bool:
    """Its data checker: XML in which a block is a goal, paths and a conclusion, and these stand nowhere else."""
    try:
        root = ElementTree.fromstring(f"<Root>{text.removesuffix('<eos>')}</Root>")
    except ElementTree.ParseError:
        return False
    holders = {"Parallel": {"Root", "Think", "Path"}, "Goal": {"Parallel"}, "Path": {"Parallel"}, "Outline": {"Goal"}}
    holders |= {"Conclusion": {"Parallel"}, "Think": {"Root"}}
    placed = all(parent.tag in holders[child.tag] for parent in root.iter() for child in parent)
    blocks = [" ".join(child.tag for child in block) for block in root.iter("Parallel")]
    return placed and all(re.fullmatch(r"Goal( Path)+ Conclusion", block) for block in blocks)


def of_npr(text: str) -> bool:
    """Its format score, whose penalties all lead to rejection, but for least lengths."""
    text, place = re.sub(r"\s+", "", text.removesuffix("<eos>")), 0
    tag = re.compile("</?(guideline|plan|step|takeaway)>")
    blocks = list(re.finditer("<guideline>(.*?)</guideline>((?:<step>.*?</step>)+)<takeaway>(.*?)</takeaway>", text))
    for block in blocks:
        if tag.search(text[place : block.start()]):
            return False
        place = block.end()
        plans, steps = re.findall("<plan>(.*?)</plan>", block[1]), re.findall("<step>(.*?)</step>", block[2])
        only = "".join(f"<plan>{plan}</plan>" for plan in plans) == block[1]
        if not only or len(plans) != len(steps) or any(map(tag.search, plans + steps)):
            return False
    return bool(blocks) and not tag.search(text[place:])


def of_threadweaver(text: str) -> bool:
    """Its format filter, with blanks between threads allowed and a conclusion not asked for."""
    if text.count("<Parallel>") != text.count("</Parallel>"):
        return False
    tag = re.compile(r"</?\w+>")
    for block in re.findall("<Parallel>(.*?)</Parallel>", text, re.DOTALL):
        shape = re.fullmatch(r"\s*<Outlines>(.*?)</Outlines>\s*((?:<Thread>.*?</Thread>)+)\s*", block, re.DOTALL)
        if shape is None or block.count("<Outline>") != block.count("</Outline>"):
            return False
        numbers = []
        for kind, part in (("Outline", shape[1]), ("Thread", shape[2])):
            items = re.findall(rf"<{kind}>(.*?)</{kind}>", part, re.DOTALL)
            found = [re.match(r"(\d+):\s*\S", item.strip()) for item in items]
            if not all(found) or any(map(tag.search, items)) or len(items) != block.count(f"<{kind}>"):
                return False
            numbers.append([int(number[1]) for number in found])
        if numbers[0] != numbers[1] or numbers[0] != list(range(1, len(numbers[0]) + 1)):
            return False
    return True


def of_parallel_r1(text: str) -> bool:
    """Its reward's format check: balanced tags, two paths a block, and a summary next to every block."""
    stack, paths, due, summaries = [], [], False, 0
    for tag in re.findall("</?(?:Parallel|Path)>|<Summary>", text):
        name = tag.strip("</>")
        if tag == "<Summary>":
            if not due:
                return False
            due, summaries = False, summaries + 1
        elif not tag.startswith("</"):
            stack.append(name)
            if name == "Parallel":
                paths, due = [*paths, 0], False
        elif not stack or stack.pop() != name:
            return False
        elif name == "Path":
            paths = [*paths[:-1], paths[-1] + 1] if paths else paths
        elif paths.pop() < 2:
            return False
        else:
            due = True
    return not stack and not due and summaries == text.count("</Parallel>")


CHECKERS: dict[str, Callable[[str], bool]] = {
    "multiverse": of_multiverse, "npr": of_npr, "threadweaver": of_threadweaver, "parallel_r1": of_parallel_r1,
}  # fmt: skip


@pytest.mark.parametrize("name", list(CHECKERS))
def test_no_text_is_well_formed_that_a_public_checker_refuses(name):
    """The checkers above restate the published ones; tags of well-formed texts are deleted, doubled or replaced."""
    tokens, rng, refused = tokenizer_of([name]), random.Random(0), 0
    dialect, ids = bind(name, tokens), tokens.encode(TEXTS[name])
    tags = tokens.convert_tokens_to_ids(list(dialect.tags.values()))
    places = [place for place, token in enumerate(ids) if token in tags]
    assert CHECKERS[name](TEXTS[name])
    assert problems(dialect, tokens, [], ids) == []
    for _ in range(300):
        spoilt = list(ids)
        for place in rng.sample(places, rng.randint(1, 2)):
            spoilt[place : place + 1] = rng.choice([[], [ids[place]] * 2, [rng.choice(tags)], [ids[place], ids[3]]])
        if not CHECKERS[name](tokens.decode(spoilt)):
            refused += 1
            assert problems(dialect, tokens, [], spoilt), tokens.decode(spoilt)
    assert refused > 200


def test_the_broken_tag_is_named_first():
    """A tag is deleted, doubled or changed for the next: all is found, and most often the first problem names it."""
    first = count = 0
    for name, text in TEXTS.items():
        tokens = tokenizer_of([name])
        dialect, ids = bind(name, tokens), tokens.encode(text)
        names = {tokens.convert_tokens_to_ids(tag): tag for tag in dialect.tags.values()}
        places = [place for place, token in enumerate(ids) if token in names]
        for place, following in zip(places, [*places[1:], places[0]], strict=True):
            swapped = list(ids)
            swapped[place], swapped[following] = ids[following], ids[place]
            for spoilt in (
                ids[:place] + ids[place + 1 :],
                ids[:place] + ids[place : place + 1] * 2 + ids[place + 1 :],
                swapped,
            ):
                if spoilt != ids:
                    found = problems(dialect, tokens, [], spoilt)
                    broken = {names[ids[place]].replace("/", ""), names[ids[following]].replace("/", "")}
                    said = found[0].what.replace("/", "")
                    count += 1
                    first += any(tag in said for tag in broken)
    assert first > 0.9 * count > 200
