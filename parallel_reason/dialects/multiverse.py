r"""The Multiverse grammar: Map, Process, Reduce.

    <Parallel>\n<Goal>\n<Outline>\n1: ...\n</Outline>\n<Outline>\n2: ...\n</Outline>\n</Goal>    the parent pauses
    child i:  \n<Path>\ni:  ...  </Path>\n
    parent:   <Conclusion>\n ... </Conclusion>\n</Parallel> ...

The join is a graft: the parent sees all paths, which did not see one another and began at one position. A path may hold
blocks of its own, whose numbers are dotted.

Positions are those of Multiverse's training code (train/utils.py): with ``</Goal>`` at g, the newline after it and
every ``<Path>`` stand at g+1, and ``<Conclusion>`` one after the last token of the longest path. Its engine instead
puts the paths one and the conclusion two positions later, block after block; released weights were trained on the
former. One thing cannot be kept in parallel decoding: in training, the newline after a path sees the paths before
it too, and the later paths see it. Here it belongs to its own path.

A path ends at ``</Path>``, at the end of text, which is taken back, or at a limit; it is joined as it is, as in the
released engine. A ``</Goal>`` without ``<Goal>`` or without a numbered ``<Outline>``, on which that engine crashes or
hangs, is a malformed fork: the thread goes on as plain text.

Source: Yang et al., Multiverse (2025), and its released code.
"""

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
    StartFork,
    Stops,
    ThreadView,
)
from parallel_reason.dialects.form import TOP, Content, Form
from parallel_reason.dialects.tagged import Tagged, item_numbers, newline_after_each
from parallel_reason.trace.thread import JoinRule


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
    form: ClassVar[Form] = Form(  # as data/parse.py and the mask ask for; a text may also begin within <Think>
        contents={
            TOP: Content("think|parallel*"),
            "think": Content("parallel*"),
            "parallel": Content("goal path+ conclusion"),
            "goal": Content("outline+"),
            "outline": Content(),
            "path": Content("parallel*"),
            "conclusion": Content(),
        },
        opens_child=("path",),
        closes_block="parallel_end",
        blanks_count=False,
    )

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The KV of the paths is kept as it was computed."""
        return "graft"

    def stops(self, depth: int) -> Stops:
        """``</Goal>`` and ``</Path>``, in every thread."""
        return self.stops_at("goal_end", "path_end")

    def step(self, view: ThreadView) -> Action:
        """Fork at ``</Goal>``; end at ``</Path>``, in the root too."""
        if view.stopped_at == "start":
            return Continue()
        if view.stopped_at == "eos" or self.vocabulary.tag_at_end(view.sampled, ["goal_end"]) is None:
            return Finish()
        goal = self.last_opened(view, "goal")
        if goal is None:
            return Reject("</Goal> without <Goal>")
        text, start = goal
        paths = item_numbers(text, "<Outline>", start)
        if not paths:
            return Reject("<Goal> without a numbered <Outline>")
        encode = self.vocabulary.encode
        return StartFork(
            children=tuple(ChildSpec((Insert(encode(f"<Path>\n{number}:"), shift=-1),)) for number in paths),
            inserts=(Insert(encode("\n")),),
        )

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """``<Conclusion>``, at the position of the newline after the longest path."""
        conclusion = Insert(self.vocabulary.encode("<Conclusion>\n"), shift=-1)
        return Continuation((conclusion,), newline_after_each(self.vocabulary, children))
