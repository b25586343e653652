"""Multiverse's pipeline: steps to blocks, a goal and a conclusion for each block, paths that stand alone.

The stages of its released code (data/, five prompts and then three), with two of them done here by code: putting the
original sentences back under the outline, and taking the numbers out. Blocks nest two deep.

Source: Yang et al., Multiverse (2506.09991), section on Multiverse 1K, and its released data code.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rl.rewriting.draft import Draft
from rl.rewriting.nodes import Block, Nodes, Passage, blocks, path_passages, plain, with_blocks, with_path_passages
from rl.rewriting.outlines import CONTEXT_LINES, LEAST_LENGTH, is_one_a_path, parse_outlines
from rl.rewriting.stage import Pipeline, ReplyError, Stage, last_lines
from rl.rewriting.steps import STEPS

CUE = "Let's think in parallel."  # before every block of Multiverse's data


@dataclass(frozen=True, slots=True)
class Goal:
    """What each path of a block is for, and what came of them."""

    outlines: tuple[str, ...]
    conclusion: str


def parse_goal(reply: str) -> Goal:
    """Lines ``1: target``, and ``Conclusion:`` with all that follows it.

    Raises:
        ReplyError: there is no conclusion, or the lines are not numbered from 1.
    """
    goals, found, conclusion = reply.partition("Conclusion:")
    if not found or not conclusion.strip(" *\n"):
        raise ReplyError("has no conclusion")
    return Goal(tuple(parse_outlines(goals)), conclusion.strip(" *\n"))


def check_goal(draft: Draft, number: int, goal: Goal) -> str | None:
    """One outline a path."""
    return None if is_one_a_path(draft, number, goal.outlines) else "has not one outline for each path"


def parse_passage(reply: str) -> str:
    """The passage, written anew.

    Raises:
        ReplyError: it is empty.
    """
    if not reply.strip():
        raise ReplyError("is empty")
    return reply.strip()


def check_passage(draft: Draft, number: int, text: str) -> str | None:
    """A passage keeps most of its length."""
    before = path_passages(draft.nodes)[number].text.strip()
    return None if len(text) >= LEAST_LENGTH * len(before) else "lost more than half of a passage"


def _with_goals(draft: Draft, goals: list[Goal]) -> Draft:
    given = iter(goals)

    def change(block: Block) -> Nodes:
        goal = next(given)
        return (replace(block, outlines=goal.outlines, conclusion=goal.conclusion),)

    return replace(draft, nodes=with_blocks(draft.nodes, change))


def _with_passages(draft: Draft, texts: list[str]) -> Draft:
    return replace(draft, nodes=with_path_passages(draft.nodes, iter([f"{text}\n" for text in texts])))


def write(draft: Draft, answer: str) -> str:
    """The training text: reasoning in ``<Think>``, then the answer."""
    text = f"<Think>\n{''.join(_written(draft.nodes, ''))}</Think>"
    return f"{text}\n\nAnswer: {answer}" if answer else text


def _written(nodes: Nodes, number: str) -> Iterator[str]:
    """The lines of a path whose number is ``number``: each block in it numbers its own paths ``number.1`` and so on."""
    for node in nodes:
        if isinstance(node, Passage):
            if node.text.strip():
                yield f"{node.text.strip()}\n"
            continue
        numbers = [f"{number}.{place}".removeprefix(".") for place in range(1, len(node.paths) + 1)]
        yield f"{CUE}\n<Parallel>\n<Goal>\n"
        for own, outline in zip(numbers, node.outlines, strict=True):
            yield f"<Outline>\n{own}: {outline}\n</Outline>\n"
        yield "</Goal>\n"
        for own, path in zip(numbers, node.paths, strict=True):
            yield f"<Path>\n{own}: {''.join(_written(path, own))}</Path>\n"
        yield f"<Conclusion>\n{node.conclusion}\n</Conclusion>\n</Parallel>\n"


GOALS: Stage[Goal] = Stage(
    "multiverse_goals",
    asks=lambda draft: [
        {
            "before": last_lines(place.before, CONTEXT_LINES),
            "paths": [plain(path).strip() for path in place.block.paths],
        }
        for place in blocks(draft.nodes)
    ],
    parse=parse_goal,
    check=check_goal,
    apply=_with_goals,
)
PASSAGES: Stage[str] = Stage(
    "multiverse_passages",
    asks=lambda draft: [
        {
            "before": last_lines(passage.before, CONTEXT_LINES),
            "own": passage.own,
            "others": list(passage.others),
            "passage": passage.text.strip(),
        }
        for passage in path_passages(draft.nodes)
    ],
    parse=parse_passage,
    check=check_passage,
    apply=_with_passages,
)
MULTIVERSE = Pipeline("multiverse", write, [*STEPS, GOALS, PASSAGES])
