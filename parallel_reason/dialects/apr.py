r"""The text format of the released APR checkpoints.

    parent:  Moving to Node #0\nCurrent State: 27:[22, 26, 31, 53], Operations: []\n ...
             Generated Node #0,2: 27:[26, 31, 31] Operation: 53-22=31\n
             <Calling Sub Searches>\n<Start Sub Search 0 at level 1> Moving to Node #0,2\n
             <End Calling Sub Searches>\n[end]
    child:   Moving to Node #0,2\nCurrent State: 27:[26, 31, 31], Operations: ['53-22=31'] ... [end]
    parent:  [all before the block]<Sub Searches>\n<No Solution in Sub Search 0 at level 1 at Node #0,2>\n
             <End Sub Searches> ...

A fork is recognised at the end of text, by the last line. The block is taken back: the parent goes on as if it had not
written it. A child sees its node's state alone, which is read from the parent's text, and returns what follows the
second to last ``Goal Reached``. A parent that begins to write a join of its own, ``<Sub Searches>``, is made to call
instead. Children do not fork.

Their harness evaluates the parent's text as Python, fails on an unknown node and loops on an empty block; here nothing
is evaluated, and both end the parent as malformed.

Source: Pan et al., Learning Adaptive Parallel Reasoning with Language Models (APR, 2025), and its released code.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, ClassVar

from parallel_reason.dialects.base import (
    Act,
    Amend,
    Child,
    End,
    Glue,
    GoOn,
    Join,
    Malformed,
    Returned,
    Split,
    Stops,
    View,
    ids_of,
)
from parallel_reason.dialects.tagged import Tagged
from parallel_reason.trace import JoinRule

_STATE = re.compile(r"Moving to Node #([0-9,]+)\nCurrent State: ([0-9]+):\[([0-9, ]*)\], Operations: \[([^\]\n]*)\]")
_CHILD = re.compile(r"Generated Node #([0-9,]+): ([0-9]+):\[([0-9, ]*)\] Operation: ([^\n]+)")
_CALL = re.compile(r"<Start Sub Search [0-9]+ at level 1> Moving to Node #([0-9,]+)")
GOAL = "Goal Reached"


@dataclass(frozen=True)
class Node:
    """A state of the search, as the parent wrote it."""

    name: str
    target: str
    numbers: str
    operations: tuple[str, ...]

    def __str__(self) -> str:
        made = ", ".join(f"'{operation}'" for operation in self.operations)
        return f"Moving to Node #{self.name}\nCurrent State: {self.target}:[{self.numbers}], Operations: [{made}]"


def nodes(text: str) -> dict[str, Node]:
    """Every node whose state can be told from a parent's text, by name; the newest mention counts."""
    found: dict[str, Node] = {}
    for match in sorted([*_STATE.finditer(text), *_CHILD.finditer(text)], key=lambda match: match.start()):
        name, target, numbers, rest = match.groups()
        if match.re is _STATE:
            operations = tuple(re.findall(r"'([^']*)'", rest))
        else:
            above = found.get(name.rpartition(",")[0])
            operations = (*(above.operations if above else ()), rest)
        found[name] = Node(name, target, numbers, operations)
    return found


class Apr(Tagged):
    """The grammar over token ids."""

    name: ClassVar[str] = "apr"
    tags: ClassVar[dict[str, str]] = {
        "call": "<Calling Sub Searches>",
        "call_end": "<End Calling Sub Searches>",
        "join": "<Sub Searches>",
        "join_end": "<End Sub Searches>",
    }

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """What children found is written into the parent."""
        return "message"

    @property
    def shares_prefix(self) -> bool:
        """A child sees its own node alone."""
        return False

    def stops(self, depth: int) -> Stops:
        """``<Sub Searches>`` in the root; besides, only the end of text."""
        return Stops() if depth else self._stops("join")

    def step(self, view: View) -> Act:
        """Fork at the end of text, if the last line closes a block."""
        if view.ended == "start":
            return GoOn()
        if view.depth:
            return End()
        if view.ended == "stop":
            before, begun, _ = self.words.pieces(view.ids)[0].rpartition(self.tags["join"])
            return self._rewrite(view, len(before), self.tags["call"]) if begun else GoOn()
        text = self.words.pieces(view.ids[:-1])[0]
        if self.tags["call_end"] not in text.removesuffix("\n").rpartition("\n")[2]:
            return End()
        before, call, block = text.rpartition(self.tags["call"])
        if not call:
            return Malformed("<End Calling Sub Searches> without <Calling Sub Searches>", ends=True)
        names = _CALL.findall(block)
        known = nodes(before)
        unknown = next((name for name in names if name not in known), None)
        if not names or unknown is not None:
            what = "no <Start Sub Search>" if not names else f"node #{unknown}, which has no state"
            return Malformed(f"<Calling Sub Searches> with {what}", ends=True)
        amend = self._rewrite(view, len(before), "")
        headers = [tuple(self.words.tokenizer.encode(str(known[name]))) for name in names]
        return Split(tuple(Child((Glue(header),)) for header in headers), amend.take_back, amend.glue)

    def _rewrite(self, view: View, start: int, text: str) -> Amend:
        """Take back everything from character ``start`` on, and write ``text`` in its place."""
        written, ends = self.words.pieces(view.ids)
        first = bisect_right(ends, start)  # the token that holds the character
        lost = written[ends[first - 1] if first else 0 : start]  # a token may reach over the start of the tag
        glue = self.words.encode(lost + text) if lost + text else ()
        return Amend(len(view.ids) - first, (Glue(glue),))

    def returns(self, child: Returned) -> bool:
        """Whether a child found a way."""
        return child.ended == "eos" and self._found(child) is not None

    def _found(self, child: Returned) -> str | None:
        parts = self.words.decode(child.sampled[:-1]).split(GOAL)
        return GOAL.join(parts[-2:]).strip("\n") if len(parts) > 2 else None

    def join(self, view: View, children: list[Returned]) -> Join:
        """What every child found."""
        lines = ["<Sub Searches>"]
        for number, child in enumerate(children):
            header = self.words.decode(ids_of(child.header))
            name = header.partition("#")[2].partition("\n")[0]
            place = f"in Sub Search {number} at level 1 at Node #{name}>"
            found = self._found(child) if self.returns(child) else None
            lines += [f"<No Solution {place}"] if found is None else [f"<Goal Reached {place}", found]
        return Join((Glue(self.words.encode("\n".join([*lines, "<End Sub Searches>"]))),))
