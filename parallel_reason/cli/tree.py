"""A run as a tree of threads, drawn live on a terminal, or as plain lines where there is none."""

from dataclasses import dataclass, field

from rich.text import Text
from rich.tree import Tree

from parallel_reason.events import Ended, Event, Finished, Joined, Spawned, Tokens
from parallel_reason.trace import Thread, Trace

STYLES = {"running": "cyan", "finished": "green", "length": "yellow", "cancelled": "bright_black", "failed": "red"}


@dataclass
class Branch:
    """A thread as it is drawn."""

    told: str
    wrote: str = ""
    tokens: int = 0
    status: str = "running"
    children: list["Branch"] = field(default_factory=list)


class TreeView:
    """Takes events, keeps the tree, and draws it.

    Attributes:
        rows: children drawn under one thread; of more, the newest running ones are shown and the rest counted.
    """

    def __init__(self, rows: int = 20) -> None:
        """Nothing has happened yet."""
        self.rows = rows
        self.branches: dict[str, Branch] = {}

    def add(self, event: Event) -> None:
        """Take an event."""
        match event:
            case Spawned(label, parent, text):
                branch = self.branches[label] = Branch(text)
                if parent is not None:
                    self.branches[parent].children.append(branch)
            case Tokens(label, ids, text):
                self.branches[label].wrote += text
                self.branches[label].tokens += len(ids)
            case Joined(label, _, text):
                self.branches[label].wrote += text
            case Ended(label, status, _):
                self.branches[label].status = status
            case Finished():
                pass

    def draw(self, width: int) -> Tree:
        """The tree as it stands, in lines of at most ``width`` characters."""
        root = self.branches["0"]
        tree = Tree(_line(root, width), guide_style="bright_black")
        self._grow(tree, root, width)
        return tree

    def _grow(self, tree: Tree, branch: Branch, width: int) -> None:
        shown = branch.children
        if len(shown) > self.rows:
            ended = sum(child.status != "running" for child in shown)
            tree.add(Text(f"… {len(shown) - self.rows} more, {ended} of {len(shown)} ended", style="bright_black"))
            running = [child for child in shown if child.status == "running"]
            shown = (running or shown)[-self.rows :]
        for child in shown:
            self._grow(tree.add(_line(child, width - 4)), child, width - 4)


def _line(branch: Branch, width: int) -> Text:
    style = STYLES[branch.status]
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("● " if branch.status == "running" else "○ ", style=style)
    line.append(branch.told, style="bold")
    line.append(f"  {branch.tokens} ", style="bright_black")
    room = max(8, width - len(line.plain) - 3)
    wrote = branch.wrote.replace("\n", " ")
    line.append(wrote if len(wrote) <= room else "…" + wrote[-room:], style=style)
    return line


def plain_lines(trace: Trace) -> list[str]:
    """A finished trace as text: one line a thread, children below their parent."""
    return [_plain(thread) for thread in trace.threads]


def _plain(thread: Thread) -> str:
    indent = "  " * thread.label.count(".")
    return f"{indent}{thread.label} [{thread.status}: {thread.why}, {thread.tokens('sampled')} tokens] {thread.text}"
