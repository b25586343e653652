r"""The grammar of Native Parallel Reasoner (NPR).

    <guideline>\n<plan>1: ...</plan>\n<plan>2: ...</plan>\n</guideline>     the parent pauses
    child i:  \n<step>\ni:  ...  </step>\n
    parent:   <takeaway>\n ... </takeaway> ...

The parent goes on from a graft, as in Multiverse, with the same positions as NPR trains on: every ``<step>`` one
after ``</guideline>``, ``<takeaway>`` one after the last token of the longest step. (NPR's engine drifts from these
as Multiverse's does.) The newline after a step belongs to it, as there.

At ``</guideline>`` their engine ends a thread unless what it wrote since its last join has a ``<guideline>``, no
``</step>`` and one to five numbered plans; so does this. Every other stop that would kill their scheduler ends the
thread.

Source: Native Parallel Reasoner (2512.07461), and its released code.
"""

from typing import Any, ClassVar

from parallel_reason.dialects.base import Act, Child, End, Glue, GoOn, Join, Malformed, Returned, Split, Stops, View
from parallel_reason.dialects.tagged import Tagged, newline_closes, numbers
from parallel_reason.trace import JoinRule

MOST_PLANS = 5


class Npr(Tagged):
    """The grammar over token ids."""

    name: ClassVar[str] = "npr"
    tags: ClassVar[dict[str, str]] = {
        "guideline": "<guideline>", "guideline_end": "</guideline>",
        "plan": "<plan>", "plan_end": "</plan>",
        "step": "<step>", "step_end": "</step>",
        "takeaway": "<takeaway>", "takeaway_end": "</takeaway>",
    }  # fmt: skip

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The steps' KV is kept as it is."""
        return "graft"

    def stops(self, depth: int) -> Stops:
        """``</guideline>`` and ``</step>``, in every thread."""
        return self._stops("guideline_end", "step_end")

    def step(self, view: View) -> Act:
        """Fork at ``</guideline>``; end at ``</step>``."""
        if view.ended == "start":
            return GoOn()
        if view.ended == "eos" or self.words.last(view.sampled, ["guideline_end"]) is None:
            return End()
        guideline = self._after_last(view.newest, "guideline")
        if guideline is None:
            return Malformed("</guideline> without <guideline>", ends=True)
        if any(mark.name == "step_end" for mark in self.words.marks(view.newest)):
            return Malformed("</step> before </guideline>", ends=True)
        plans = numbers(self.words.decode(view.newest), "<plan>")
        if not 1 <= len(plans) <= MOST_PLANS:
            return Malformed(f"<guideline> with {len(plans)} numbered plans, not 1 to {MOST_PLANS}", ends=True)
        header = self.words.encode
        return Split(
            children=tuple(Child((Glue(header(f"<step>\n{number}:"), shift=-1),)) for number in plans),
            glue=(Glue(header("\n")),),
        )

    def join(self, view: View, children: list[Returned]) -> Join:
        """``<takeaway>``."""
        return Join((Glue(self.words.encode("<takeaway>\n"), shift=-1),), newline_closes(self.words, children))
