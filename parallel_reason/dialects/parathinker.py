"""The ParaThinker grammar: several thoughts from the start, then one summary of them all.

    child i:  <thinki>  ...  </thinki>               i from 1, right after the prompt
    root:     <summary> ... </summary>

The root forks before it samples anything. The join is a graft: thoughts see the prompt and themselves, and all begin at
one position; the summary begins one after the last token of the longest. A thought that did not write its closing tag
is closed. ParaThinker also adds a learned vector to the values of each thought, which weights in the ordinary Hugging
Face layout do not have; a model that needs it is not run exactly.

Source: ParaThinker (2509.04475), and its released code.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    Continuation,
    Insert,
    Rewrite,
    Stops,
    ThreadView,
    ids_of,
)
from parallel_reason.dialects.form import TOP, Content, Form
from parallel_reason.dialects.tagged import Tagged, close_if_open, closes_for_graft, fork_at_start
from parallel_reason.trace.thread import JoinRule

MAX_THOUGHTS, PLAIN_END = 8, "</think>"
OPENING = "By analyzing multiple reasoning processes above, I concluded that: The final answer is"
THOUGHTS = range(1, MAX_THOUGHTS + 1)


@dataclass(frozen=True, config={"extra": "forbid", "arbitrary_types_allowed": True}, kw_only=True)
class ParaThinker(Tagged):
    """The grammar over token ids.

    Attributes:
        paths: how many thoughts.
        join_on: when the summary begins: after ``all`` thoughts, or after the ``first`` that ends, as in the released
            engine; the others are cut there and closed.
        opening: whether the runtime begins the summary with `OPENING`, as the released engine does; trained weights
            write it themselves.
        any_end: whether ``</think>`` ends a thought too, and any end but its own is taken back and replaced by its own,
            as in the released engine.
    """

    name: ClassVar[str] = "parathinker"
    tags: ClassVar[dict[str, str]] = {
        **{f"think{i}": f"<think{i}>" for i in THOUGHTS},
        **{f"think{i}_end": f"</think{i}>" for i in THOUGHTS},
        "summary": "<summary>", "summary_end": "</summary>",
    }  # fmt: skip
    form: ClassVar[Form] = Form(  # the collator renames two thoughts of a row to 7 and 8, wherever they stand
        contents={
            TOP: Content("|".join(f"think{i}" for i in THOUGHTS) + "+ summary", text=False),
            **{f"think{i}": Content() for i in THOUGHTS},
            "summary": Content(),
        },
        opens_child=tuple(f"think{i}" for i in THOUGHTS),
        options={"paths": MAX_THOUGHTS},
        open_ended=True,
        renamed=(6, 7),
    )
    paths: int = Field(MAX_THOUGHTS, ge=1, le=MAX_THOUGHTS)
    join_on: Literal["all", "first"] = "all"
    opening: bool = False
    any_end: bool = False

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The KV of the thoughts is kept as it was computed."""
        return "graft"

    @property
    def joins_on_first(self) -> bool:
        """By the option ``join_on``."""
        return self.join_on == "first"

    def returns(self, child: ChildResult) -> bool:
        """Whether a thought came to its own end."""
        return child.ended in ("stop", "eos")

    def stops(self, depth: int) -> Stops:
        """``</summary>`` in the root, the end of any thought in a child."""
        if not depth:
            return self.stops_at("summary_end")
        stops = self.stops_at(*(f"think{i}_end" for i in THOUGHTS))
        if not self.any_end:
            return stops
        token = self.vocabulary.token(PLAIN_END)
        if token is None:
            return Stops(stops.ids, (*stops.texts, PLAIN_END))
        return Stops(stops.ids | {token}, stops.texts)

    def step(self, view: ThreadView) -> Action:
        """Fork before the first token of the root."""
        return fork_at_start(view, [self.vocabulary.encode(f"<think{i}>") for i in THOUGHTS[: self.paths]])

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """``<summary>`` and its opening."""
        closes = closes_for_graft(children, [self._close(place, child) for place, child in enumerate(children, 1)])
        return Continuation((Insert(self.vocabulary.encode("<summary>" + OPENING * self.opening)),), closes)

    def _close(self, place: int, child: ChildResult) -> Rewrite:
        """What is rewritten at the end of a thought: it ends in the tag of its own number."""
        header = self.vocabulary.matches(ids_of(child.header))
        name = f"{header[0].name if header else f'think{place}'}_end"
        own = self.vocabulary.encode(self.tags.get(name, f"</think{place}>"))
        if not self.any_end or child.ended != "stop" or self.vocabulary.tag_at_end(child.ids, [name]):
            return close_if_open(child, own)
        return Rewrite(self._end_tokens(child.ids), (Insert(own),))

    def _end_tokens(self, ids: list[int]) -> int:
        """How many tokens the closing tag takes with which a thought ended."""
        text, ends = self.vocabulary.text_and_ends(ids)
        start = text.rfind("</think")
        return sum(end > start for end in ends) if start >= 0 else 0
