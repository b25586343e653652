"""A run as a tree of threads, drawn live on a terminal, or as plain lines where there is none."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from parallel_reason.cli.console import one_line
from parallel_reason.runtime.events import (
    Event,
    ForkJoined,
    ThreadEnded,
    ThreadStarted,
    TokensSampled,
    TraceFinished,
)
from parallel_reason.trace import Thread, Trace

STYLES = {"running": "cyan", "finished": "green", "length": "yellow", "cancelled": "bright_black", "failed": "red"}


@dataclass
class Branch:
    """A thread as it is drawn.

    Attributes:
        header: what it began with: the prompt, or the header that its fork wrote.
        text: what it wrote, results of its children included.
        tokens: how many it sampled.
    """

    header: str
    text: str = ""
    tokens: int = 0
    status: str = "running"
    children: list["Branch"] = field(default_factory=list)


class TreeView:
    """Takes events, keeps the tree, and draws it.

    Attributes:
        rows: children drawn under one thread; of more, the newest running ones are drawn and the rest counted.
        branches: by label.
    """

    def __init__(self, rows: int = 20) -> None:
        """Nothing has happened yet."""
        self.rows = rows
        self.branches: dict[str, Branch] = {}

    def add(self, event: Event) -> None:
        """Take an event."""
        match event:
            case ThreadStarted(label=label, parent=parent, text=text):
                branch = self.branches[label] = Branch(text)
                if parent is not None:
                    self.branches[parent].children.append(branch)
            case TokensSampled(label=label, ids=ids, text=text):
                self.branches[label].text += text
                self.branches[label].tokens += len(ids)
            case ForkJoined(label=label, text=text):
                self.branches[label].text += text
            case ThreadEnded(label=label, status=status):
                self.branches[label].status = status
            case TraceFinished():
                pass

    def draw(self, width: int) -> Tree:
        """The tree as it stands, in lines of at most ``width`` characters."""
        root = self.branches["0"]
        tree = Tree(_row(root, width), guide_style="bright_black")
        below = [(root, tree, width - 4)]
        while below:
            branch, node, width = below.pop()
            if len(branch.children) > self.rows:
                node.add(self._others(branch))
            below += [(child, node.add(_row(child, width)), width - 4) for child in self._shown(branch)]
        return tree

    def _shown(self, branch: Branch) -> list[Branch]:
        if len(branch.children) <= self.rows:
            return branch.children
        running = [child for child in branch.children if child.status == "running"]
        return (running or branch.children)[-self.rows :]

    def _others(self, branch: Branch) -> Text:
        count = len(branch.children)
        ended = sum(child.status != "running" for child in branch.children)
        return Text(f"… {count - self.rows} more, {ended} of {count} ended", style="bright_black")


async def draw(events: AsyncIterator[Event], console: Console) -> Trace:
    """Draw a stream of events as a tree until its trace is finished."""
    view = TreeView(rows=max(4, console.height - 4))
    with Live(console=console, refresh_per_second=10) as live:
        async for event in events:
            view.add(event)
            live.update(view.draw(console.width - 2))
            if isinstance(event, TraceFinished):
                return event.trace
    raise AssertionError("a stream ends with TraceFinished")


def _row(branch: Branch, width: int) -> Text:
    style = STYLES[branch.status]
    row = Text(no_wrap=True, overflow="ellipsis")
    row.append("● " if branch.status == "running" else "○ ", style=style)
    row.append(one_line(branch.header), style="bold")
    row.append(f"  {branch.tokens} ", style="bright_black")
    room = max(8, width - len(row.plain) - 3)
    text = one_line(branch.text[-room:])
    cut = len(branch.text) > room or len(text) > room
    row.append("…" + text[-room:] if cut else text, style=style)
    return row


def plain_lines(trace: Trace) -> list[str]:
    """A finished trace as text: one line a thread, children below their parent."""
    return [_plain(thread) for thread in trace.threads]


def _plain(thread: Thread) -> str:
    ended = f"{thread.status}: {thread.stop_reason}, {thread.tokens('sampled')} tokens"
    return f"{'  ' * thread.depth}{thread.label} [{one_line(ended)}] {one_line(thread.text)}"
