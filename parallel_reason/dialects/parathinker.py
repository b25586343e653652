"""The ParaThinker grammar: several thoughts from the start, then one summary of them all.

    child i:  <thinki>  ...  </thinki>               i from 1, right after the prompt
    root:     <summary> ... </summary>

The root forks before it writes anything. It goes on from a graft: thoughts see the prompt and themselves, and all
begin at one position; the summary begins one after the last token of the longest. A thought that did not close itself
is closed. ParaThinker also adds a learned vector to the values of each thought, which weights in the ordinary Hugging
Face layout do not have; a model that needs it is not run exactly.

Source: ParaThinker (2509.04475), and its released code.
"""

from typing import Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.base import Act, Child, End, Glue, GoOn, Join, Returned, Split, Stops, View
from parallel_reason.dialects.tagged import Tagged, closing, side_by_side
from parallel_reason.trace import JoinRule

MOST = 8
THOUGHTS = range(1, MOST + 1)


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
    paths: int = Field(MOST, ge=1, le=MOST)

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The thoughts' KV is kept as it is."""
        return "graft"

    def stops(self, depth: int) -> Stops:
        """``</summary>`` in the root, the end of any thought in a child."""
        return self._stops(*(f"think{i}_end" for i in THOUGHTS)) if depth else self._stops("summary_end")

    def step(self, view: View) -> Act:
        """Fork before the first token of the root."""
        if view.ended != "start":
            return End()
        if view.depth:
            return GoOn()
        return Split(tuple(Child((Glue(self.words.encode(f"<think{i}>")),)) for i in THOUGHTS[: self.paths]))

    def join(self, view: View, children: list[Returned]) -> Join:
        """``<summary>``."""
        encode = self.words.encode
        closes = [closing(child, encode(f"</think{i}>")) for i, child in enumerate(children, start=1)]
        return Join((Glue(encode("<summary>")),), side_by_side(children, closes))
