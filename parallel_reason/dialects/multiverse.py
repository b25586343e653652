r"""The Multiverse grammar: Map, Process, Reduce.

    <Parallel>\n<Goal>\n<Outline>\n1: ...\n</Outline>\n<Outline>\n2: ...\n</Outline>\n</Goal>    the parent pauses
    child i:  \n<Path>\ni:  ...  </Path>\n
    parent:   <Conclusion>\n ... </Conclusion>\n</Parallel> ...

The parent goes on from a graft: it sees all paths, which did not see one another and began at one position. A path
may hold blocks of its own, whose numbers are dotted.

Positions are those of Multiverse's training code (train/utils.py): with ``</Goal>`` at g, the newline after it and
every ``<Path>`` stand at g+1, and ``<Conclusion>`` one after the last token of the longest path. Its engine instead
puts the paths one and the conclusion two positions later, block after block; released weights were trained on the
former. One thing cannot be kept in parallel decoding: in training, the newline after a path sees the paths before
it too, and the later paths see it. Here it belongs to its own path.

What ends a path: ``</Path>``, or the end of text, which is taken back, or a limit; it is joined as it is, as their
engine does. Where their engine dies or hangs, a ``</Goal>`` without ``<Goal>`` or without a numbered ``<Outline>``,
the thread goes on as plain text.

Source: Yang et al., Multiverse (2025), and its released code.
"""

from typing import Any, ClassVar

from parallel_reason.dialects.base import Act, Child, End, Glue, GoOn, Join, Malformed, Returned, Split, Stops, View
from parallel_reason.dialects.tagged import Tagged, newline_closes, numbers
from parallel_reason.trace import JoinRule


class Multiverse(Tagged):
    """The grammar over token ids."""

    name: ClassVar[str] = "multiverse"
    tags: ClassVar[dict[str, str]] = {
        "think": "<Think>", "think_end": "</Think>",
        "parallel": "<Parallel>", "parallel_end": "</Parallel>",
        "goal": "<Goal>", "goal_end": "</Goal>",
        "outline": "<Outline>", "outline_end": "</Outline>",
        "path": "<Path>", "path_end": "</Path>",
        "conclusion": "<Conclusion>", "conclusion_end": "</Conclusion>",
    }  # fmt: skip

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The paths' KV is kept as it is."""
        return "graft"

    def stops(self, depth: int) -> Stops:
        """``</Goal>`` and ``</Path>``, in every thread."""
        return self._stops("goal_end", "path_end")

    def step(self, view: View) -> Act:
        """Fork at ``</Goal>``; end at ``</Path>``, in the root too."""
        if view.ended == "start":
            return GoOn()
        if view.ended == "eos" or self.words.last(view.sampled, ["goal_end"]) is None:
            return End()
        goal = self._after_last(view.sampled, "goal")
        if goal is None:
            return Malformed("</Goal> without <Goal>")
        paths = numbers(goal, "<Outline>")
        if not paths:
            return Malformed("<Goal> without a numbered <Outline>")
        header = self.words.encode
        return Split(
            children=tuple(Child((Glue(header(f"<Path>\n{number}:"), shift=-1),)) for number in paths),
            glue=(Glue(header("\n")),),
        )

    def join(self, view: View, children: list[Returned]) -> Join:
        """``<Conclusion>``."""
        return Join((Glue(self.words.encode("<Conclusion>\n"), shift=-1),), newline_closes(self.words, children))
