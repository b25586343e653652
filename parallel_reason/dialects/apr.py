r"""The text format of the released APR checkpoints.

    parent:  Moving to Node #0\nCurrent State: 27:[22, 26, 31, 53], Operations: []\n ...
             Generated Node #0,2: 27:[26, 31, 31] Operation: 53-22=31\n
             <Calling Sub Searches>\n<Start Sub Search 0 at level 1> Moving to Node #0,2\n
             <End Calling Sub Searches>\n[end]
    child:   Moving to Node #0,2\nCurrent State: 27:[26, 31, 31], Operations: ['53-22=31'] ... [end]
    parent:  [all before the block]<Sub Searches>\n<No Solution in Sub Search 0 at level 1 at Node #0,2>\n
             <End Sub Searches>\n ...

A fork is recognised at the end of text, by the last line. The block is taken back: the parent continues as if it had
not sampled it. A child sees the state of its node alone, which is read from the parent's text, and returns the text
after the second to last ``Goal Reached``. Where a parent begins to write a join itself, ``<Sub Searches>``, the tag is
replaced by ``<Calling Sub Searches>``. Children do not fork.

The released harness evaluates the parent's text as Python, fails on an unknown node and loops on an empty block. Here
nothing is evaluated, and both end the parent as a malformed fork.

Source: Pan et al., Learning Adaptive Parallel Reasoning with Language Models (APR, 2025), and its released code.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, ClassVar

from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    ChildSpec,
    Continuation,
    Continue,
    Finish,
    Insert,
    Reject,
    Rewrite,
    StartFork,
    Stops,
    ThreadView,
    ids_of,
)
from parallel_reason.dialects.form import Form
from parallel_reason.dialects.quotes import is_quoted, unquoted
from parallel_reason.dialects.tagged import Tagged
from parallel_reason.trace.thread import JoinRule

_STATE = re.compile(r"Moving to Node #([0-9,]+)\nCurrent State: ([0-9]+):\[([0-9, ]*)\], Operations: \[([^\]\n]*)\]")
_CHILD = re.compile(r"Generated Node #([0-9,]+): ([0-9]+):\[([0-9, ]*)\] Operation: ([^\n]+)")
_CALL = re.compile(r"<Start Sub Search [0-9]+ at level 1> Moving to Node #([0-9,]+)")
_JOIN = re.compile(
    r"<Sub Searches>\n"
    r"(?:<No Solution in Sub Search [0-9]+ at level 1 at Node #[0-9,]+>\n"
    r"|<Goal Reached in Sub Search [0-9]+ at level 1 at Node #[0-9,]+>\n(?:[^<\n]*\n)*)*"
    r"<End Sub Searches>\n?"
)
GOAL = "Goal Reached"


@dataclass(frozen=True)
class Node:
    """A state of the search, as text.

    Attributes:
        name: the path to it, such as ``0,2``.
        target: the number to reach.
        numbers: those that are left, separated by commas.
        operations: those that led to it.
    """

    name: str
    target: str
    numbers: str
    operations: tuple[str, ...]

    def __str__(self) -> str:
        operations = ", ".join(f"'{operation}'" for operation in self.operations)
        return f"Moving to Node #{self.name}\nCurrent State: {self.target}:[{self.numbers}], Operations: [{operations}]"


def read_nodes(text: str) -> dict[str, Node]:
    """Every node whose state a parent's text gives, by name; the last mention counts."""
    nodes: dict[str, Node] = {}
    for match in sorted([*_STATE.finditer(text), *_CHILD.finditer(text)], key=lambda match: match.start()):
        name, target, numbers, rest = match.groups()
        if match.re is _STATE:
            operations = tuple(re.findall(r"'([^']*)'", rest))
        else:
            parent = nodes.get(name.rpartition(",")[0])
            operations = (*(parent.operations if parent else ()), rest)
        nodes[name] = Node(name, target, numbers, operations)
    return nodes


class Apr(Tagged):
    """The grammar over token ids."""

    name: ClassVar[str] = "apr"
    tags: ClassVar[dict[str, str]] = {
        "call": "<Calling Sub Searches>",
        "call_end": "<End Calling Sub Searches>",
        "join": "<Sub Searches>",
        "join_end": "<End Sub Searches>",
    }
    form: ClassVar[Form] = Form(join_block=_JOIN)

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """Results are inserted into the parent as text."""
        return "message"

    @property
    def shares_prefix(self) -> bool:
        """A child sees its own node alone."""
        return False

    def stops(self, depth: int) -> Stops:
        """``<Sub Searches>`` in the root; a child has no stops but the end of text."""
        return Stops() if depth else self.stops_at("join")

    def step(self, view: ThreadView) -> Action:
        """Fork at the end of text, if the last line closes a block."""
        if view.stopped_at == "start":
            return Continue()
        if view.depth:
            return Finish()
        if view.stopped_at == "stop":
            before, join, _ = self.vocabulary.text_and_ends(view.ids)[0].rpartition(self.tags["join"])
            return self._rewrite_from(view, len(before), self.tags["call"]) if join else Continue()
        text = self.vocabulary.text_and_ends(view.ids[:-1])[0]
        if self.tags["call_end"] not in text.removesuffix("\n").rpartition("\n")[2]:
            return Finish()
        own = self.vocabulary.decode(view.sampled_since_join)
        if is_quoted(own[: max(0, own.rfind(self.tags["call_end"]))]):
            return Finish()
        before, call, block = self._last_call(view)
        if not call or block.count(self.tags["call_end"]) > 1:  # it closed before, such as one that a prompt quotes
            return Reject("<End Calling Sub Searches> without <Calling Sub Searches>", ends=True)
        names = _CALL.findall(block)
        nodes = read_nodes(before)
        unknown = next((name for name in names if name not in nodes), None)
        if not names or unknown is not None:
            what = "no <Start Sub Search>" if not names else f"node #{unknown}, which has no state"
            return Reject(f"<Calling Sub Searches> with {what}", ends=True)
        rewrite = self._rewrite_from(view, len(before), "")
        encode = self.vocabulary.tokenizer.encode  # with the tokens that begin a text: the header begins the context
        children = tuple(ChildSpec((Insert(tuple(encode(str(nodes[name])))),)) for name in names)
        return StartFork(children, rewrite.take_back, rewrite.inserts)

    def _last_call(self, view: ThreadView) -> tuple[str, str, str]:
        """The text before the block, its tag and the text after that: the last that the thread did not quote."""
        text, ends = self.vocabulary.text_and_ends(view.ids[:-1])
        start = ends[view.since_join - 1] if 0 < view.since_join <= len(ends) else 0
        own = unquoted(re.compile(re.escape(self.tags["call"])), text[start:])
        if not own:
            before, call, after = text[:start].rpartition(self.tags["call"])
            return before, call, after + text[start:]
        place = start + own[-1].start()
        return text[:place], self.tags["call"], text[place + len(self.tags["call"]) :]

    def _rewrite_from(self, view: ThreadView, start: int, text: str) -> Rewrite:
        """Take back all tokens from character ``start`` on, and insert ``text`` in their place."""
        whole, ends = self.vocabulary.text_and_ends(view.ids)
        first = bisect_right(ends, start)  # the token that holds the character
        kept = whole[ends[first - 1] if first else 0 : start]  # what that token holds before the character
        ids = self.vocabulary.encode(kept + text) if kept + text else ()
        return Rewrite(len(view.ids) - first, (Insert(ids),))

    def returns(self, child: ChildResult) -> bool:
        """Whether a child found a solution."""
        return child.ended == "eos" and self._solution(child) is not None

    def _solution(self, child: ChildResult) -> str | None:
        parts = self.vocabulary.decode(child.sampled[:-1]).split(GOAL)
        return GOAL.join(parts[-2:]).strip("\n") if len(parts) > 2 else None

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """The solution of every child, or that it has none."""
        lines = ["<Sub Searches>"]
        for number, child in enumerate(children):
            header = self.vocabulary.decode(ids_of(child.header))
            name = header.partition("#")[2].partition("\n")[0]
            place = f"in Sub Search {number} at level 1 at Node #{name}>"
            solution = self._solution(child) if self.returns(child) else None
            lines += [f"<No Solution {place}"] if solution is None else [f"<Goal Reached {place}", solution]
        return Continuation((Insert(self.vocabulary.encode("\n".join([*lines, "<End Sub Searches>\n"]))),))
