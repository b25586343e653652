"""The stages that find what can run in parallel: main steps, their parts, and which neighbours need not wait.

Both published pipelines begin so (Multiverse, data/; ThreadWeaver, data_generation/), with ranges of lines in the
latter. Here every line has its number in the prompt, and every reply is checked against the lines.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rl.rewriting.draft import Draft, Group, Step, tree
from rl.rewriting.stage import RejectionError, ReplyError, Stage

_DECORATION = "*`-# \t"
_STEP = re.compile(r"(S[0-9]{1,4}(?:\.[0-9]{1,4})?)\**: *\**L([0-9]{1,6})(?: *[-–] *L?([0-9]{1,6}))?\**(?::(.*))?")  # noqa: RUF001
_GROUP = re.compile(r"P[0-9]{1,4}\**: *\[([^\[\]]*)\]")
_NAME = re.compile(r"S[0-9]{1,4}(?:\.[0-9]{1,4})?")


def parse_steps(reply: str) -> list[Step]:
    """Lines ``S2: L4-L9: what it does``, among whatever else; none for ``none``.

    Raises:
        ReplyError: there is no such line.
    """
    lines = (line.strip(_DECORATION) for line in reply.splitlines())
    found = [match for line in lines if (match := _STEP.match(line))]
    if not found and not _says_none(reply):
        raise ReplyError("names no step")
    return [
        Step(name, int(first), int(last or first), (what or "").strip(_DECORATION))
        for name, first, last, what in (match.groups() for match in found)
    ]


def parse_groups(reply: str) -> list[Group]:
    """Lines ``P1: [S1+S2, S3]``, among whatever else; none for ``none``.

    Raises:
        ReplyError: there is no such line, or it names something else than steps.
    """
    lines = (line.strip(_DECORATION) for line in reply.splitlines())
    found = [match[1] for line in lines if (match := _GROUP.match(line))]
    if not found and not _says_none(reply):
        raise ReplyError("names no group")
    groups = [tuple(tuple(name.strip() for name in member.split("+")) for member in one.split(",")) for one in found]
    if not all(_NAME.fullmatch(name) for group in groups for member in group for name in member):
        raise ReplyError("has a group of something else than steps")
    return groups


def _says_none(reply: str) -> bool:
    return reply.strip().lower().strip(_DECORATION + ".") == "none"


def uncovered(steps: Sequence[Step], first: int, last: int) -> str | None:
    """What is wrong if steps are not the lines from ``first`` to ``last``, each in one step, in order."""
    expected = first
    for step in steps:
        if step.first != expected:
            return "steps leave lines out or share them"
        if step.last < step.first:
            return "a step ends before it begins"
        expected = step.last + 1
    return None if expected == last + 1 else "steps do not end with the last line"


def check_steps(draft: Draft, number: int, steps: list[Step]) -> str | None:
    """Main steps are numbered from 1, and cover every line."""
    if [step.name for step in steps] != [f"S{place}" for place in range(1, len(steps) + 1)]:
        return "steps are not numbered in order"
    return uncovered(steps, 1, len(draft.lines))


def check_parts(draft: Draft, number: int, parts: list[Step]) -> str | None:
    """The parts of a step are two or more, numbered from 1, and cover it."""
    wrong = None
    of_steps = {
        step.name: [part for part in parts if part.name.rpartition(".")[0] == step.name] for step in draft.steps
    }
    if sum(map(len, of_steps.values())) < len(parts):
        wrong = "parts are of no step"
    for step in draft.steps:
        own = of_steps[step.name]
        if own and [part.name for part in own] != [f"{step.name}.{place}" for place in range(1, len(own) + 1)]:
            wrong = wrong or "parts are not numbered in order"
        if len(own) == 1:
            wrong = wrong or "a step has a single part"
        if own:
            wrong = wrong or uncovered(own, step.first, step.last)
    return wrong


def check_grouped(steps: Sequence[Step], groups: list[Group]) -> str | None:
    """Groups are of two members or more, of neighbouring steps in order, each step in one group at most."""
    places = {step.name: number for number, step in enumerate(steps)}
    used: set[str] = set()
    for group in groups:
        names = [name for member in group for name in member]
        if not set(names) <= places.keys():
            return "a group names a step that is not there"
        if len(group) < 2:
            return "a group has a single member"
        if [places[name] for name in names] != list(range(places[names[0]], places[names[0]] + len(names))):
            return "a group is not of neighbouring steps in order"
        if len({name.rpartition(".")[0] for name in names}) > 1:
            return "a group has parts of several steps"
        if used & set(names):
            return "groups share a step"
        used |= set(names)
    return None


def _rejoined(draft: Draft) -> Draft:
    """The draft with its tree.

    Raises:
        RejectionError: no steps run in parallel.
    """
    if not draft.groups and not draft.part_groups:
        raise RejectionError("has nothing to run in parallel")
    return replace(draft, nodes=tree(draft))


STEPS: list[Stage[Any]] = [
    Stage(
        "steps",
        asks=lambda draft: [{"lines": draft.numbered, "count": len(draft.lines)}],
        parse=parse_steps,
        check=check_steps,
        apply=lambda draft, replies: replace(draft, steps=tuple(replies[0])),
    ),
    Stage(
        "parts",
        asks=lambda draft: [{"lines": draft.numbered, "steps": list(map(str, draft.steps))}],
        parse=parse_steps,
        check=check_parts,
        apply=lambda draft, replies: replace(draft, parts=tuple(replies[0])),
    ),
    Stage(
        "groups",
        asks=lambda draft: [{"lines": draft.numbered, "steps": list(map(str, draft.steps))}],
        parse=parse_groups,
        check=lambda draft, number, groups: check_grouped(draft.steps, groups),
        apply=lambda draft, replies: replace(draft, groups=tuple(replies[0])),
    ),
    Stage(
        "part_groups",
        asks=lambda draft: [{"lines": draft.numbered, "parts": list(map(str, draft.parts))}] if draft.parts else [],
        parse=parse_groups,
        check=lambda draft, number, groups: check_grouped(draft.parts, groups),
        apply=lambda draft, replies: _rejoined(replace(draft, part_groups=tuple(replies[0]) if replies else ())),
    ),
]
