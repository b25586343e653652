"""The ParaThinker grammar: several thoughts from the start, then one summary of them all.

    child i:  <thinki>  ...  </thinki>               i from 1, right after the prompt
    root:     <summary> ... </summary>

The root forks before it samples anything. The join is a graft: thoughts see the prompt and themselves, and all begin at
one position; the summary begins one after the last token of the longest. A thought that did not write its closing tag
is closed. ParaThinker also adds a learned vector to the values of each thought, which weights in the ordinary Hugging
Face layout do not have; a model that needs it is not run exactly.

Source: ParaThinker (2509.04475), and its released code.
"""

from typing import Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    Continuation,
    Insert,
    Stops,
    ThreadView,
)
from parallel_reason.dialects.tagged import Tagged, close_if_open, closes_for_graft, fork_at_start
from parallel_reason.trace.thread import JoinRule

MAX_THOUGHTS = 8
THOUGHTS = range(1, MAX_THOUGHTS + 1)


@dataclass(frozen=True, config={"extra": "forbid", "arbitrary_types_allowed": True}, kw_only=True)
class ParaThinker(Tagged):
    """The grammar over token ids.

    Attributes:
        paths: how many thoughts.
    """

    name: ClassVar[str] = "parathinker"
    tags: ClassVar[dict[str, str]] = {
        **{f"think{i}": f"<think{i}>" for i in THOUGHTS},
        **{f"think{i}_end": f"</think{i}>" for i in THOUGHTS},
        "summary": "<summary>", "summary_end": "</summary>",
    }  # fmt: skip
    paths: int = Field(MAX_THOUGHTS, ge=1, le=MAX_THOUGHTS)

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The KV of the thoughts is kept as it was computed."""
        return "graft"

    def stops(self, depth: int) -> Stops:
        """``</summary>`` in the root, the end of any thought in a child."""
        return self.stops_at(*(f"think{i}_end" for i in THOUGHTS)) if depth else self.stops_at("summary_end")

    def step(self, view: ThreadView) -> Action:
        """Fork before the first token of the root."""
        return fork_at_start(view, [self.vocabulary.encode(f"<think{i}>") for i in THOUGHTS[: self.paths]])

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """``<summary>``."""
        encode = self.vocabulary.encode
        closes = [close_if_open(child, encode(f"</think{i}>")) for i, child in enumerate(children, start=1)]
        return Continuation((Insert(encode("<summary>")),), closes_for_graft(children, closes))
