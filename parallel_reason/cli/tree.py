"""A run as a tree of threads, drawn live on a terminal, or as plain lines where there is none."""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from parallel_reason.cli.console import clipped, in_words, one_line, tail
from parallel_reason.runtime.events import (
    Event,
    ForkJoined,
    ThreadEnded,
    ThreadStarted,
    TokensSampled,
    TraceFinished,
)
from parallel_reason.text import decode
from parallel_reason.trace import Thread, Trace

STYLES = {"running": "cyan", "finished": "green", "length": "yellow", "cancelled": "bright_black", "failed": "red"}
REFRESH_S = 0.1
FEWEST_ROWS = 4  # drawn however low the terminal is


@dataclass
class Branch:
    """A thread as it is drawn.

    Attributes:
        label: its path in the tree.
        header: what it began with: the prompt, or the header that its fork wrote.
        text: what it wrote, results of its children included.
        ids: what it sampled, token ids.
        children: in the order in which they were started.
    """

    label: str
    header: str
    parent: "Branch | None" = None
    text: str = ""
    ids: list[int] = field(default_factory=list)
    status: str = "running"
    stop_reason: str = ""
    children: list["Branch"] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """How many tokens it sampled."""
        return len(self.ids)

    @property
    def depth(self) -> int:
        """How many forks lie above it."""
        return self.label.count(".")


class TreeView:
    """Takes events, keeps the tree, and draws it.

    Attributes:
        title: what stands for the prompt; the prompt itself if None.
        branches: by label.
    """

    def __init__(self, title: str | None = None) -> None:
        """Nothing has happened yet."""
        self.title = title
        self.branches: dict[str, Branch] = {}

    def add(self, event: Event) -> None:
        """Take an event."""
        match event:
            case ThreadStarted(label=label, parent=parent, text=text):
                above = None if parent is None else self.branches[parent]
                header = text if above or self.title is None else self.title
                branch = self.branches[label] = Branch(label, header, above)
                if above:
                    above.children.append(branch)
            case TokensSampled(label=label, ids=ids, text=text):
                self.branches[label].text += text
                self.branches[label].ids += ids
            case ForkJoined(label=label, text=text):
                self.branches[label].text += text
            case ThreadEnded(label=label, status=status, stop_reason=reason):
                self.branches[label].status, self.branches[label].stop_reason = status, reason
            case TraceFinished():
                pass

    def draw(self, width: int, height: int) -> Tree:
        """The tree as it stands, in lines of at most ``width`` cells.

        Of more threads than fit in ``height`` lines, running ones are drawn before those that ended, newer ones before
        older ones; the rest are counted.
        """
        shown = self._shown(height)
        root = self.branches["0"]
        tree = Tree(_row(root, width), guide_style="bright_black")
        below = [(root, tree, width - 4)]
        while below:
            branch, node, width = below.pop()
            children = [child for child in branch.children if child.label in shown]
            if len(children) < len(branch.children):
                node.add(_counted(branch, len(branch.children) - len(children)))
            below += [(child, node.add(_row(child, width)), width - 4) for child in children]
        return tree

    def _shown(self, height: int) -> set[str]:
        """Labels of the threads that are drawn."""
        shown: set[str] = set()
        newest = list(reversed(self.branches.values()))
        for branch in sorted(newest, key=lambda branch: branch.status != "running"):
            path: list[Branch] = []
            above: Branch | None = branch
            while above and above.label not in shown:
                path.append(above)
                above = above.parent
            drawn = shown | {one.label for one in path}
            counts = sum(any(child.label not in drawn for child in self.branches[label].children) for label in drawn)
            if shown and len(drawn) + counts > max(height, FEWEST_ROWS):
                break
            shown = drawn
        return shown


async def draw(events: AsyncIterator[Event], console: Console, title: str) -> Trace:
    """Draw a stream of events as a tree until its trace is finished; ``title`` stands for the prompt."""
    view, drawn = TreeView(title), 0.0
    with Live(console=console, auto_refresh=False) as live:
        async for event in events:
            view.add(event)
            if isinstance(event, TraceFinished) or time.monotonic() - drawn > REFRESH_S:
                live.update(view.draw(console.width - 2, console.height - 2), refresh=True)
                drawn = time.monotonic()
    return _finished(event)


async def print_ended(
    events: AsyncIterator[Event], tokenizer: Any, eos_ids: Iterable[int], write: Callable[[str], bool]
) -> Trace | None:
    """Write a line for each thread as soon as it ends, until the trace is finished.

    Args:
        eos_ids: tokens that are left out of a thread's text, as in `Thread.text`.
        write: takes a line; false if nobody reads any more.

    Returns:
        The trace; None if nobody reads any more.
    """
    view, ends = TreeView(), frozenset(eos_ids)
    async for event in events:
        view.add(event)
        if isinstance(event, ThreadEnded):
            ended = view.branches[event.label]
            text = decode(tokenizer, [token for token in ended.ids if token not in ends])
            if not write(_line(ended, ended.tokens, text)):
                return None
    return _finished(event)


def _finished(event: Event) -> Trace:
    """The trace of the last event of a stream."""
    assert isinstance(event, TraceFinished)
    return event.trace


def plain_lines(trace: Trace) -> list[str]:
    """A finished trace as text: one line a thread, children below their parent."""
    return [_line(thread, thread.tokens("sampled"), thread.text) for thread in trace.threads]


def _line(thread: Thread | Branch, tokens: int, text: str) -> str:
    ended = f"{thread.status}: {thread.stop_reason}, {tokens} tokens"
    return f"{'  ' * thread.depth}{thread.label} [{one_line(ended)}] {one_line(text)}"


def _row(branch: Branch, width: int) -> Text:
    """A thread in one row: its header, at most a third of it, and as much of its newest text as fits."""
    style = STYLES[branch.status]
    row = Text(no_wrap=True, overflow="ellipsis")
    row.append("● " if branch.status == "running" else "○ ", style=style)
    row.append(clipped(in_words(branch.header), max(8, width // 3)), style="bold")
    row.append(f"  {branch.tokens} ", style="bright_black")
    return row.append(tail(in_words(branch.text[-4 * width :]), max(8, width - cell_len(row.plain))), style=style)


def _counted(branch: Branch, hidden: int) -> Text:
    ended = sum(child.status != "running" for child in branch.children)
    return Text(f"… {hidden} more, {ended} of {len(branch.children)} ended", style="bright_black")
