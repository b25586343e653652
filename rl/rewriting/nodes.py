"""A text as a tree: passages, and blocks of paths that do not see one another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Passage:
    """Text that stands in one piece."""

    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """Paths that do not see one another, what each is for, and what came of them.

    Attributes:
        paths: what each holds, in order; one path is a sequence of passages and blocks.
        outlines: one a path, once they are written.
        conclusion: empty where a grammar has none.
    """

    paths: "tuple[Nodes, ...]"
    outlines: tuple[str, ...] = ()
    conclusion: str = ""


Nodes = tuple[Passage | Block, ...]


def merged(nodes: Sequence[Passage | Block]) -> Nodes:
    """The same text with neighbouring passages in one."""
    found: list[Passage | Block] = []
    for node in nodes:
        before = found[-1] if found else None
        if isinstance(node, Passage) and isinstance(before, Passage):
            found[-1] = Passage(before.text + node.text)
        else:
            found.append(node)
    return tuple(found)


def plain(nodes: Sequence[Passage | Block]) -> str:
    """All that nodes say, in order, as sequential text: outlines, paths, conclusion."""
    return "".join(_plain(node) for node in nodes)


def _plain(node: Passage | Block) -> str:
    if isinstance(node, Passage):
        return node.text
    ended = [text if text.endswith("\n") else f"{text}\n" for text in map(plain, node.paths)]
    return "".join([*(f"{outline}\n" for outline in node.outlines), *ended, node.conclusion and f"{node.conclusion}\n"])


@dataclass(frozen=True, slots=True)
class Place:
    """A block, and the text before it, which its paths see."""

    block: Block
    before: str


def blocks(nodes: Nodes, before: str = "") -> list[Place]:
    """Every block, in order, after those in its paths."""
    found: list[Place] = []
    for node in nodes:
        if isinstance(node, Block):
            found += [place for path in node.paths for place in blocks(path, before)]
            found.append(Place(node, before))
        before += plain([node])
    return found


def with_blocks(nodes: Nodes, change: Callable[[Block], Nodes]) -> Nodes:
    """The nodes with each block changed, in the order of `blocks`: in those above, the ones in it are changed already.

    Args:
        change: what stands in the place of a block.
    """
    found: list[Passage | Block] = []
    for node in nodes:
        if isinstance(node, Block):
            found += change(replace(node, paths=tuple(with_blocks(path, change) for path in node.paths)))
        else:
            found.append(node)
    return merged(found)


@dataclass(frozen=True, slots=True)
class PathPassage:
    """A passage in a path.

    Attributes:
        before: the text that its block's paths see.
        own, others: the outline of its path, and those of the other paths.
    """

    text: str
    before: str
    own: str
    others: tuple[str, ...]


def path_passages(nodes: Nodes, before: str = "", of: tuple[str, tuple[str, ...]] | None = None) -> list[PathPassage]:
    """Every passage in a path, in order.

    Args:
        of: the outline of the path that the nodes are, and those of the others; None outside of all paths.
    """
    found: list[PathPassage] = []
    for node in nodes:
        if isinstance(node, Block):
            for number, path in enumerate(node.paths):
                others = (*node.outlines[:number], *node.outlines[number + 1 :])
                found += path_passages(path, before, (node.outlines[number], others))
        elif of is not None:
            found.append(PathPassage(node.text, before, *of))
        before += plain([node])
    return found


def with_path_passages(nodes: Nodes, texts: Iterator[str], within: bool = False) -> Nodes:
    """The nodes with the text of each passage in a path replaced, in the order of `path_passages`."""
    found: list[Passage | Block] = []
    for node in nodes:
        if isinstance(node, Block):
            found.append(replace(node, paths=tuple(with_path_passages(path, texts, True) for path in node.paths)))
        else:
            found.append(Passage(next(texts)) if within else node)
    return tuple(found)
