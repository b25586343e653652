r"""The grammar of Parallel-R1.

    ... <Parallel>                                   the parent pauses
    each child:  <Path>  ...  </Path>                the same context, another seed
    parent:      </Parallel>\n<Summary> ... </Summary> ...

``unseen`` (the name that the released models use): paths do not see one another, begin one after ``<Parallel>``, and
``</Parallel>`` stands one after the last token of the longest: a graft. ``seen``: plain causal text, in which a path
sees the ones before it: relinearised, with the children sampled apart. The released rollouts decode the summary under
plain causal attention in both; here it is decoded as it is trained.

A path that ends on the end of text, which is taken back, or at a limit, is closed with ``</Path>``. A summary that ends
on the end of text is closed with ``</Summary>``, and the parent samples on. Paths do not fork, nor does a thread within
a summary.

Source: Parallel-R1 (2025), parallel_thinking_loop_v3.py and the trainer of its released code.
"""

from collections import Counter
from typing import Any, ClassVar, Literal

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
    Rewrite,
    StartFork,
    Stops,
    ThreadView,
    ids_of,
)
from parallel_reason.dialects.form import TOP, Content, Form
from parallel_reason.dialects.tagged import Tagged, close_if_open, closes_and_copies, closes_for_graft
from parallel_reason.trace.thread import JoinRule


def sft_positions(ids: list[int], parallel: int, path: int, path_end: int, parallel_end: int) -> list[int]:
    """Positions of the released supervised training, over prompt and text alike, [tokens].

    After any ``<Parallel>``, in the prompt too, all up to the next ``</Parallel>`` stands at 0 but what lies in paths:
    so the last one that a prompt quotes takes in the question, and all before the first path.

    Args:
        ids: of a row, [tokens].
        parallel, path, path_end, parallel_end: token ids of the tags.
    """
    positions, after, place = [0] * len(ids), 0, 0
    while place < len(ids):
        positions[place] = after
        if ids[place] == parallel:
            start, longest, length, place = after, 0, 0, place + 1
            while place < len(ids) and (length or ids[place] != parallel_end):
                if length or ids[place] == path:
                    length += 1
                    positions[place] = start + length
                    longest, length = max(longest, length), 0 if ids[place] == path_end else length
                place += 1
            if place == len(ids):
                break
            after = positions[place] = start + longest + 1
        after, place = after + 1, place + 1
    return positions


def _positions(dialect: "ParallelR1", ids: list[int]) -> list[int] | None:
    """By the option ``positions``; of tags that are single tokens."""
    tags = dialect.vocabulary.ids
    if dialect.positions == "plain" or dialect.view == "seen" or tags is None:
        return None
    return sft_positions(ids, tags["parallel"], tags["path"], tags["path_end"], tags["parallel_end"])


@dataclass(frozen=True, config={"extra": "forbid", "arbitrary_types_allowed": True}, kw_only=True)
class ParallelR1(Tagged):
    """The grammar over token ids.

    Attributes:
        paths: children of every fork.
        view: whether the model was trained on paths that see the ones before them.
        positions: where `parse` puts the tokens of training text: ``plain``, as a run and the released RL do, or
            ``sft``, as the released supervised training of ``unseen`` does; see `sft_positions`.
    """

    name: ClassVar[str] = "parallel_r1"
    tags: ClassVar[dict[str, str]] = {
        "parallel": "<Parallel>", "parallel_end": "</Parallel>",
        "path": "<Path>", "path_end": "</Path>",
        "summary": "<Summary>", "summary_end": "</Summary>",
    }  # fmt: skip
    form: ClassVar[Form] = Form(  # as check_parallel_thinking_format asks for
        contents={
            TOP: Content("parallel summary", repeats=True),
            "parallel": Content("path path+", text=False),
            "path": Content(),
            "summary": Content(),
        },
        opens_child=("path",),
        closes_block="summary_end",
        open_ended=True,
        blanks_count=False,
        positions=_positions,
    )
    paths: int = Field(2, ge=1, le=64)
    view: Literal["seen", "unseen"] = "unseen"
    positions: Literal["plain", "sft"] = "plain"

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """By the option ``view``."""
        return "graft" if options.get("view", cls.view) == "unseen" else "relinearise"

    def stops(self, depth: int) -> Stops:
        """``<Parallel>`` in the root, ``</Path>`` in a child."""
        return self.stops_at("path_end" if depth else "parallel")

    def step(self, view: ThreadView) -> Action:
        """Fork at ``<Parallel>``."""
        if view.stopped_at == "start":
            return Continue()
        if view.depth == 0 and view.joins and self._within_summary(view):
            close = Rewrite(1, (Insert(self.vocabulary.encode("</Summary>")),))
            return close if view.stopped_at == "eos" else Continue()
        if view.stopped_at == "eos" or view.depth:
            return Finish()
        return StartFork((ChildSpec((Insert(self.vocabulary.encode("<Path>")),)),) * self.paths)

    def _within_summary(self, view: ThreadView) -> bool:
        """Whether there are more ``<Summary>``, one of the newest join and those sampled since, than are closed."""
        own = Counter(match.name for match in self.vocabulary.meant(view.sampled_since_join))
        all_ends, own_ends = (
            sum(match.name == "summary_end" for match in self.vocabulary.matches(ids))
            for ids in (view.ids[view.since_join :], view.sampled_since_join)
        )
        return 1 + own["summary"] > own["summary_end"] + all_ends - own_ends  # what was not sampled closed an open one

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """``</Parallel>`` and ``<Summary>``; if paths are seen, after the copies of all but the first."""
        encode = self.vocabulary.encode
        between = "\n" if self.view == "unseen" else ""
        summary = Insert(encode(f"</Parallel>{between}<Summary>"))
        closes = [close_if_open(child, encode("</Path>")) for child in children]
        if self.view == "unseen":
            return Continuation((summary,), closes_for_graft(children, closes))
        in_place, copies = closes_and_copies(children, closes, [ids_of(child.header) for child in children])
        return Continuation((*copies, summary), in_place)
