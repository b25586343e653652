r"""SSFT: threads that begin with global forking tokens, and a vote.

    child:  <|im_start|><thinki>\n  ...  \boxed{answer} ...     i from 1 to 6, right after the prompt
    root:   \boxed{answer}                                      of most threads; the root ends

The root forks before it samples anything. More threads than forking tokens use these in turn, so each token has as many
as any other or one more, as in the released evaluation. A thread ends at the end of text or a limit. Its answer is
what stands in its last ``\boxed{}``, compared without blanks; of answers with as many votes, that of the first thread
wins. The root takes over the tokens of the first thread with that answer; if no thread has one, an empty box.

Source: Jia et al., Training LLMs to Reason in Parallel with Global Forking Tokens (2510.05132), vllm_model.py of its
released code.
"""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from typing import Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.base import Action, ChildResult, Continuation, Insert, Stops, ThreadView
from parallel_reason.dialects.tagged import Tagged, fork_at_start
from parallel_reason.trace.thread import JoinRule

TOKENS = 6
BOX = r"\boxed{"
FIRST_TAIL = 64  # tokens at the end of a thread in which the box is looked for first
_BRACES = re.compile(r"\\boxed\{|[{}]")


@dataclass(frozen=True, config={"extra": "forbid", "arbitrary_types_allowed": True}, kw_only=True)
class Ssft(Tagged):
    """The grammar over token ids.

    Attributes:
        paths: how many threads vote.
    """

    name: ClassVar[str] = "ssft"
    tags: ClassVar[dict[str, str]] = {
        "start": "<|im_start|>",
        **{f"think{i}": f"<think{i}>" for i in range(1, TOKENS + 1)},
    }
    paths: int = Field(TOKENS, ge=1, le=64)

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The answer that won is inserted."""
        return "message"

    def stops(self, depth: int) -> Stops:
        """None but the end of text."""
        return Stops()

    def step(self, view: ThreadView) -> Action:
        """Fork before the first token of the root."""
        numbers = (path % TOKENS + 1 for path in range(self.paths))
        return fork_at_start(view, [self.vocabulary.encode(f"<|im_start|><think{i}>\n") for i in numbers])

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """The box that most threads agree on."""
        boxes = [self._box(child.sampled) for child in children]
        votes = Counter(text for text, _ in filter(None, boxes))
        if not votes:
            return Continuation((Insert(self.vocabulary.encode(BOX + "}")),), ends="no thread has an answer")
        winner, count = votes.most_common(1)[0]
        ids = next(ids for text, ids in filter(None, boxes) if text == winner)
        return Continuation((Insert(ids),), ends=f"{count} of {len(children)} threads agree")

    def answer(self, view: ThreadView) -> str | None:
        r"""What stands in the ``\boxed{}`` that the join wrote."""
        text = self.vocabulary.decode(view.ids[view.since_join :])
        found = last_box(text)
        return text[found[0] + len(BOX) : found[1] - 1].strip() or None if found else None

    def _box(self, ids: list[int]) -> tuple[str, tuple[int, ...]] | None:
        """What the last box holds, without blanks, and the tokens that hold the box; None without an answer."""
        size = FIRST_TAIL
        while last_box(self.vocabulary.decode(ids[-size:])) is None:
            if size >= len(ids):
                return None
            size *= 2
        tail = ids[-size:]
        text, ends = self.vocabulary.text_and_ends(tail)
        start, stop = last_box(text) or (0, 0)
        inside = "".join(text[start + len(BOX) : stop - 1].split())
        return (inside, tuple(tail[bisect_right(ends, start) : bisect_left(ends, stop) + 1])) if inside else None


def last_box(text: str) -> tuple[int, int] | None:
    r"""Where the last ``\boxed{...}`` with balanced braces lies in a text, in characters; None if there is none."""
    last, opened = None, []
    for brace in _BRACES.finditer(text):
        if brace.group() != "}":
            opened.append((brace.start(), brace.group() == BOX))
        elif opened:
            start, is_box = opened.pop()
            last = max(last or (start, 0), (start, brace.end())) if is_box else last
    return last
