r"""The grammar of Parallel-R1.

    ... <Parallel>                                   the parent pauses
    each child:  <Path>  ...  </Path>                the same prompt, another seed
    parent:      </Parallel>\n<Summary> ... </Summary> ...

``unseen`` (the released models' name for it): paths do not see one another, begin one after ``<Parallel>``, and
``</Parallel>`` stands one after the last token of the longest: a graft. ``seen``: plain causal text, in which a path
sees the ones before it: laid end to end, with the children sampled apart. Their rollouts decode the summary under
plain causal attention in both; here it is decoded as it is trained.

A path that ends on the end of text, which is taken back, or at a limit, is closed with ``</Path>``; a summary that
ends on the end of text is closed with ``</Summary>`` and the parent goes on. Paths do not fork, nor does an open
summary.

Source: Parallel-R1 (2025), parallel_thinking_loop_v3.py and the trainer of its released code.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.base import Act, Amend, Child, End, Glue, GoOn, Join, Returned, Split, Stops, View, ids_of
from parallel_reason.dialects.tagged import Tagged, closing, end_to_end, side_by_side
from parallel_reason.trace import JoinRule


@dataclass(frozen=True, config={"extra": "forbid", "arbitrary_types_allowed": True}, kw_only=True)
class ParallelR1(Tagged):
    """The grammar over token ids.

    Attributes:
        paths: children of every fork.
        view: whether paths are trained to see the ones before them.
    """

    name: ClassVar[str] = "parallel_r1"
    tags: ClassVar[dict[str, str]] = {
        "parallel": "<Parallel>", "parallel_end": "</Parallel>",
        "path": "<Path>", "path_end": "</Path>",
        "summary": "<Summary>", "summary_end": "</Summary>",
    }  # fmt: skip
    paths: int = Field(2, ge=1, le=64)
    view: Literal["seen", "unseen"] = "unseen"

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """By the view that the model was trained with."""
        return "graft" if options.get("view", cls.view) == "unseen" else "relinearise"

    def stops(self, depth: int) -> Stops:
        """``<Parallel>`` in the root, ``</Path>`` in a child."""
        return self._stops("path_end" if depth else "parallel")

    def step(self, view: View) -> Act:
        """Fork at ``<Parallel>``."""
        if view.ended == "start":
            return GoOn()
        if view.depth == 0 and view.joins and self._summarising(view.ids):
            return Amend(1, (Glue(self.words.encode("</Summary>")),)) if view.ended == "eos" else GoOn()
        if view.ended == "eos" or view.depth:
            return End()
        return Split((Child((Glue(self.words.encode("<Path>")),)),) * self.paths)

    def _summarising(self, ids: list[int]) -> bool:
        """Whether a ``<Summary>`` is open."""
        names = [mark.name for mark in self.words.marks(ids) if mark.name in ("summary", "summary_end")]
        return names[-1:] == ["summary"]

    def join(self, view: View, children: list[Returned]) -> Join:
        """``</Parallel>`` and an open ``<Summary>``; after the copies of all but the first path, if they are seen."""
        tag, summary = self.words.encode("</Path>"), Glue(self.words.encode("</Parallel>\n<Summary>"))
        closes = [closing(child, tag) for child in children]
        if self.view == "unseen":
            return Join((summary,), side_by_side(children, closes))
        first, copies = end_to_end(children, closes, [ids_of(child.header) for child in children])
        return Join((*copies, summary), first)
