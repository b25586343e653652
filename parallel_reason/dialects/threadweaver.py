r"""The ThreadWeaver grammar: plain causal text that a client forks and lays end to end again.

    <Parallel>\n<Outlines>\n<Outline>1: ...</Outline>\n<Outline>2: ...</Outline>\n</Outlines>    the parent pauses
    child i:  \n<Thread>\ni:  ...  </Thread>
    parent:   [child 1]<Thread>\n2: ... </Thread>\n</Parallel> ...       the model writes </Parallel> itself

The join relinearises: after the first child the others are laid down once more, under plain causal attention, without
the newline before ``<Thread>``. A child that did not close gets ``\n</Thread>``, and the parent then ends after
``\n</Parallel>``, as in the released controller. Numbers that repeat count once; threads do not nest. An
``</Outlines>`` without a numbered ``<Outline>`` leaves the parent sequential.

Source: ThreadWeaver (Meta, 2025), single_turn_agent_loop.py of its released code.
"""

from typing import Any, ClassVar

from parallel_reason.dialects.base import (
    Act,
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
from parallel_reason.dialects.tagged import Tagged, closing, end_to_end, numbers
from parallel_reason.trace import JoinRule


class ThreadWeaver(Tagged):
    """The grammar over token ids."""

    name: ClassVar[str] = "threadweaver"
    tags: ClassVar[dict[str, str]] = {
        "think": "<Think>", "think_end": "</Think>",
        "parallel": "<Parallel>", "parallel_end": "</Parallel>",
        "outlines": "<Outlines>", "outlines_end": "</Outlines>",
        "outline": "<Outline>", "outline_end": "</Outline>",
        "thread": "<Thread>", "thread_end": "</Thread>",
        "conclusion": "<Conclusion>", "conclusion_end": "</Conclusion>",
    }  # fmt: skip

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The children's tokens are laid end to end."""
        return "relinearise"

    def stops(self, depth: int) -> Stops:
        """``</Outlines>`` in the root, ``</Thread>`` in a child."""
        return self._stops("thread_end" if depth else "outlines_end")

    def step(self, view: View) -> Act:
        """Fork at ``</Outlines>``; a child ends at ``</Thread>``."""
        if view.ended == "start":
            return GoOn()
        if view.ended == "eos" or view.depth:
            return End()
        outlines = self._after_last(view.sampled, "outlines")
        if outlines is None:
            return Malformed("</Outlines> without <Outlines>")
        found = list(dict.fromkeys(numbers(outlines, "<Outline>")))
        if not found:
            return Malformed("<Outlines> without a numbered <Outline>")
        return Split(tuple(Child((Glue(self.words.encode(f"\n<Thread>\n{number}:")),)) for number in found))

    def join(self, view: View, children: list[Returned]) -> Join:
        """The children end to end, then a newline; ``</Parallel>`` and the end if one of them did not close."""
        encode, decode = self.words.encode, self.words.decode
        tag = encode("\n</Thread>")
        begun = [decode(ids_of(child.header)) for child in children]
        headers = [encode(text.removeprefix("\n" if number else "")) for number, text in enumerate(begun)]
        closes, copies = end_to_end(children, [closing(child, tag) for child in children], headers)
        if all(child.ended == "stop" for child in children):
            return Join((*copies, Glue(encode("\n"))), closes)
        return Join((*copies, Glue(encode("\n</Parallel>"))), closes, ends="a thread did not close")
