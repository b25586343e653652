"""A text that is being rewritten: its lines, the steps that they make, and the tree that the steps make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rl.rewriting.nodes import Block, Nodes, Passage, merged


@dataclass(frozen=True, slots=True)
class Step:
    """Neighbouring lines that do one thing.

    Attributes:
        name: ``S2`` for a main step, ``S2.1`` for a part of it.
        first, last: its lines, counted from 1, both of them in it.
        what: it does, in words.
    """

    name: str
    first: int
    last: int
    what: str = ""

    def __str__(self) -> str:
        return f"{self.name}: L{self.first}-L{self.last}: {self.what}"


Group = tuple[tuple[str, ...], ...]  # names of steps: the members run in parallel, the steps of a member in order


@dataclass(frozen=True, slots=True)
class Draft:
    """A text on its way through the stages of a pipeline.

    Attributes:
        lines: of the original, blank ones with the line before; ``"".join`` gives it back.
        steps, parts: the main steps, and those into which some of them are divided.
        groups, part_groups: which of either run in parallel.
        nodes: the text as it is now.
    """

    problem: str
    lines: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    parts: tuple[Step, ...] = ()
    groups: tuple[Group, ...] = ()
    part_groups: tuple[Group, ...] = ()
    nodes: Nodes = ()

    @property
    def numbered(self) -> str:
        """The lines with their numbers, for a prompt."""
        return "\n".join(f"L{number}: {line.strip()}" for number, line in enumerate(self.lines, 1))

    def text(self, step: Step) -> str:
        """The lines of a step."""
        return "".join(self.lines[step.first - 1 : step.last])


def split_lines(text: str) -> tuple[str, ...]:
    """The lines of a text that are not blank, each with its line break and the blank lines that follow."""
    lines: list[str] = []
    for line in text.strip().splitlines(keepends=True):
        if line.strip() or not lines:
            lines.append(line)
        else:
            lines[-1] += line
    return tuple(lines)


def tree(draft: Draft) -> Nodes:
    """The passages and blocks that the groups make of the lines; a main step that is not divided is one passage."""
    parts_of = {
        step.name: [part for part in draft.parts if part.name.startswith(f"{step.name}.")] for step in draft.steps
    }

    def inside(step: Step) -> Nodes:
        leaves = parts_of[step.name] or [step]
        return _grouped(leaves, draft.part_groups, lambda leaf: (Passage(draft.text(leaf)),))

    return _grouped(draft.steps, draft.groups, inside)


def _grouped(steps: Sequence[Step], groups: Sequence[Group], inside: Callable[[Step], Nodes]) -> Nodes:
    """What steps hold in order, those of a group as a block."""
    by_name = {step.name: step for step in steps}
    starts = {group[0][0]: group for group in groups}
    nodes: list[Passage | Block] = []
    left = 0  # steps of the newest block that are still to come
    for step in steps:
        if group := starts.get(step.name):
            paths = (tuple(node for name in member for node in inside(by_name[name])) for member in group)
            nodes.append(Block(tuple(merged(path) for path in paths)))
            left = sum(map(len, group))
        if left:
            left -= 1
        else:
            nodes += inside(step)
    return merged(nodes)
