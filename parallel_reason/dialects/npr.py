r"""The grammar of Native Parallel Reasoner (NPR).

    <guideline>\n<plan>1: ...</plan>\n<plan>2: ...</plan>\n</guideline>     the parent pauses
    child i:  \n<step>\ni:  ...  </step>\n
    parent:   <takeaway>\n ... </takeaway> ...

The join is a graft, as in Multiverse, with the positions that NPR is trained on: every ``<step>`` one after
``</guideline>``, ``<takeaway>`` one after the last token of the longest step. (The positions of NPR's engine differ
from these, as Multiverse's do.) The newline after a step belongs to that step, as in Multiverse.

At ``</guideline>`` the released engine ends a thread unless what it sampled since its last join has a ``<guideline>``,
no ``</step>`` and one to five numbered plans; so does this dialect, whose option ``plans`` is that bound. Training
text may have more. Every other stop, on which the released scheduler crashes, ends the thread.

Source: Native Parallel Reasoner (2512.07461), and its released code.
"""

from typing import Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    ChildSpec,
    Continuation,
    Continue,
    Finish,
    Insert,
    Reject,
    StartFork,
    Stops,
    ThreadView,
)
from parallel_reason.dialects.form import TOP, Content, Form
from parallel_reason.dialects.tagged import Tagged, item_numbers, newline_after_each
from parallel_reason.trace.thread import JoinRule


@dataclass(frozen=True, config={"extra": "forbid", "arbitrary_types_allowed": True}, kw_only=True)
class Npr(Tagged):
    """The grammar over token ids.

    Attributes:
        plans: the most of a guideline that forks, as in the released engine; training text may have more.
    """

    name: ClassVar[str] = "npr"
    tags: ClassVar[dict[str, str]] = {
        "guideline": "<guideline>", "guideline_end": "</guideline>",
        "plan": "<plan>", "plan_end": "</plan>",
        "step": "<step>", "step_end": "</step>",
        "takeaway": "<takeaway>", "takeaway_end": "</takeaway>",
    }  # fmt: skip
    form: ClassVar[Form] = Form(  # as the mask and the format score ask for
        contents={
            TOP: Content("guideline step+ takeaway", repeats=True),
            "guideline": Content("plan+", text=False),
            "plan": Content(),
            "step": Content(),
            "takeaway": Content(),
        },
        opens_child=("step",),
        closes_block="takeaway_end",
        options={"plans": 1_000_000},
        blanks_count=False,
    )
    plans: int = Field(5, ge=1)

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The KV of the steps is kept as it was computed."""
        return "graft"

    def stops(self, depth: int) -> Stops:
        """``</guideline>`` and ``</step>``, in every thread."""
        return self.stops_at("guideline_end", "step_end")

    def step(self, view: ThreadView) -> Action:
        """Fork at ``</guideline>``; end at ``</step>``."""
        if view.stopped_at == "start":
            return Continue()
        if view.stopped_at == "eos" or self.vocabulary.tag_at_end(view.sampled, ["guideline_end"]) is None:
            return Finish()
        text, meant = self.vocabulary.meant_in(view.sampled_since_join)
        names = {name for name, _ in meant}
        if "guideline" not in names:
            return Reject("</guideline> without <guideline>", ends=True)
        if "step_end" in names:
            return Reject("</step> before </guideline>", ends=True)
        plans = item_numbers(text, "<plan>")
        if not 1 <= len(plans) <= self.plans:
            return Reject(f"<guideline> with {len(plans)} numbered plans, not 1 to {self.plans}", ends=True)
        encode = self.vocabulary.encode
        return StartFork(
            children=tuple(ChildSpec((Insert(encode(f"<step>\n{number}:"), shift=-1),)) for number in plans),
            inserts=(Insert(encode("\n")),),
        )

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """``<takeaway>``, at the position of the newline after the longest step."""
        takeaway = Insert(self.vocabulary.encode("<takeaway>\n"), shift=-1)
        return Continuation((takeaway,), newline_after_each(self.vocabulary, children))
