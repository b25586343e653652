"""What a thread sees and where its next token stands: the one definition of visibility and positions.

`TokenTable` numbers the tokens of a trace in the order in which they are added; a `View` names the tokens that a
thread sees by these numbers, and the position of its next token. The transitions below give the view after each thing
that can happen to a thread. A run (`parallel_reason.runtime`), the text replay and `layout` all use them; nothing else
computes a position or a visible set.

A child sees its parent's tokens up to the fork, if the fork shares its prefix, and its own. A parent goes on after a
fork by its join rule:

- ``message`` (APR): with its own tokens, never its children's; what they returned is in the join text.
- ``relinearise`` (ThreadWeaver, Parallel-R1 seen): with the tokens of its first child as if it had written them itself,
  and after them the copies of the other children's in the join text: plain causal text of its own.
- ``graft`` (Multiverse, NPR, Parallel-R1 unseen, ParaThinker): with its own tokens and those of every child, which did
  not see one another. All children began at one position; the next position is one past the last of the longest child.

A child that sampled nothing left nothing to see. A position is one more than the last that the thread sees, plus the
``shift`` of its span.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from parallel_reason.trace.thread import JoinRule

Intervals = tuple[tuple[int, int], ...]


@dataclass
class TokenTable:
    """All tokens of a trace, numbered in the order in which they were added.

    Attributes:
        ids, positions: of each, [tokens].
        sampled: whether the model wrote it, [tokens].
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)

    def gather(self, view: "View") -> tuple[list[int], list[int]]:
        """Ids and positions of the tokens that a view sees, in its order, each [length of the view]."""
        ids: list[int] = []
        positions: list[int] = []
        for start, stop in view.seen:
            ids += self.ids[start:stop]
            positions += self.positions[start:stop]
        return ids, positions


@dataclass(frozen=True, slots=True)
class View:
    """What the next token of a thread sees.

    Attributes:
        seen: half-open intervals of token numbers, in the order in which the thread came to see them; disjoint.
        position: of the next token, if its span has no shift.
    """

    seen: Intervals = ()
    position: int = 0

    def __len__(self) -> int:
        """How many tokens it sees."""
        return sum(stop - start for start, stop in self.seen)

    @property
    def newest(self) -> int:
        """Number of the token seen last, whose logits predict the next one; -1 if there is none."""
        return self.seen[-1][1] - 1 if self.seen else -1

    def beyond(self, other: "View") -> Intervals:
        """What it sees and ``other`` does not."""
        rest = []
        known = sorted(other.seen)
        for start, stop in self.seen:
            for first, last in known[max(0, bisect_right(known, (start, start)) - 1) :]:
                if first >= stop:
                    break
                if start < first:
                    rest.append((start, first))
                start = max(start, min(last, stop))
            if start < stop:
                rest.append((start, stop))
        return tuple(rest)


def add(table: TokenTable, view: View, ids: Sequence[int], *, shift: int = 0, sampled: bool = False) -> View:
    """Add tokens to a thread; the view after them. Without tokens, nothing changes."""
    if not ids:
        return view
    start, position = len(table.ids), view.position + shift
    table.ids += ids
    table.positions += range(position, position + len(ids))
    table.sampled += [sampled] * len(ids)
    return View(_merged([*view.seen, (start, len(table.ids))]), position + len(ids))


def take_back(table: TokenTable, view: View, count: int) -> View:
    """A view without its newest ``count`` tokens, whose positions are used again."""
    seen, position = list(view.seen), view.position
    while count and seen:
        start, stop = seen.pop()
        removed = min(count, stop - start)
        position = table.positions[stop - removed]
        count -= removed
        if stop - removed > start:
            seen.append((start, stop - removed))
    return View(tuple(seen), position)


def fork(view: View, shares_prefix: bool) -> View:
    """The view with which a child of a thread begins."""
    return view if shares_prefix else View()


def join(view: View, rule: JoinRule, children: Sequence[tuple[View, bool]]) -> View:
    """The view with which a parent goes on.

    Args:
        view: of the parent.
        children: the view of each at its end, and whether it sampled anything, [children].
    """
    ran = [child for child, sampled in children if sampled]
    if rule == "relinearise" and children and children[0][1]:
        return children[0][0]
    if rule == "graft" and ran:
        own = [interval for child in ran for interval in child.beyond(view)]
        return View(_merged([*view.seen, *own]), max(child.position for child in ran))
    return view


def _merged(intervals: Iterable[tuple[int, int]]) -> Intervals:
    """The same tokens in the same order; an interval that begins where the one before it ends is joined to it."""
    merged: list[tuple[int, int]] = []
    for start, stop in intervals:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)
