r"""The AsyncThink grammar: an organizer that goes on thinking while its workers do.

    organizer:  ... <FORK-1>sub-query</FORK-1> ... <FORK-2>sub-query</FORK-2> ... <JOIN-1>      waits for worker 1
    worker 1:   sub-query\n ... <RETURN>takeaways</RETURN>
    organizer:  takeaways</JOIN-1> ... <JOIN-2>takeaways</JOIN-2> ... <ANSWER> ... </ANSWER>

A worker starts at its ``</FORK-i>`` and sees its sub-query alone. The organizer samples on, and waits at ``<JOIN-i>``
until worker i has ended. What the worker returned is inserted; nothing, if it returned nothing. Workers do not fork.
One that is not joined when the organizer ends is cancelled. ``</ANSWER>`` ends the organizer.

A sub-query without text or with a number that was forked before, and a join of what was never forked or has joined
already, are format errors in the paper. Here each is a malformed fork, and the organizer goes on.

Source: Chi et al., The Era of Agentic Organization: Learning to Organize with Language Models (2510.26658), section 2.
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
    Join,
    Reject,
    StartFork,
    Stops,
    ThreadView,
)
from parallel_reason.dialects.tagged import Tagged
from parallel_reason.trace.thread import JoinRule

MAX_WORKERS = 8
WORKERS = range(1, MAX_WORKERS + 1)
FORKED = {f"fork{i}_end": i for i in WORKERS}
JOINED = {f"join{i}": i for i in WORKERS}


@dataclass(frozen=True, config={"extra": "forbid", "arbitrary_types_allowed": True}, kw_only=True)
class AsyncThink(Tagged):
    """The grammar over token ids.

    Attributes:
        worker_prompt: the text with which a worker begins; ``{query}`` in it is the sub-query.
    """

    name: ClassVar[str] = "async_think"
    tags: ClassVar[dict[str, str]] = {
        **{f"fork{i}": f"<FORK-{i}>" for i in WORKERS},
        **{f"fork{i}_end": f"</FORK-{i}>" for i in WORKERS},
        **{f"join{i}": f"<JOIN-{i}>" for i in WORKERS},
        **{f"join{i}_end": f"</JOIN-{i}>" for i in WORKERS},
        "return": "<RETURN>", "return_end": "</RETURN>",
        "answer": "<ANSWER>", "answer_end": "</ANSWER>",
    }  # fmt: skip
    worker_prompt: str = Field("{query}\n", pattern=r"\{query\}")

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """What a worker returned is inserted."""
        return "message"

    @property
    def shares_prefix(self) -> bool:
        """A worker sees its sub-query alone."""
        return False

    def stops(self, depth: int) -> Stops:
        """``</FORK-i>``, ``<JOIN-i>`` and ``</ANSWER>`` in the organizer, ``</RETURN>`` in a worker."""
        return self.stops_at("return_end") if depth else self.stops_at(*FORKED, *JOINED, "answer_end")

    def step(self, view: ThreadView) -> Action:
        """Fork at ``</FORK-i>``, join at ``<JOIN-i>``."""
        if view.stopped_at == "start":
            return Continue()
        if view.stopped_at == "eos" or view.depth:
            return Finish()
        wrote = self.vocabulary.tag_at_end(view.sampled, [*FORKED, *JOINED])
        if wrote in FORKED:
            return self._fork(view, FORKED[wrote])
        return self._join(view, JOINED[wrote]) if wrote in JOINED else Finish()

    def _fork(self, view: ThreadView, i: int) -> Action:
        query = self.last_inside(view.sampled, f"fork{i}")
        if query is None:
            return Reject(f"</FORK-{i}> without <FORK-{i}>")
        query = query.strip()
        if not query:
            return Reject(f"<FORK-{i}> without a sub-query")
        if str(i) in view.forked:
            return Reject(f"<FORK-{i}> once more")
        encode = self.vocabulary.tokenizer.encode  # with the tokens that begin a text: it begins the worker's context
        header = Insert(tuple(encode(self.worker_prompt.replace("{query}", query))))
        return StartFork((ChildSpec((header,)),), key=str(i))

    def _join(self, view: ThreadView, i: int) -> Action:
        if str(i) not in view.forked:
            return Reject(f"<JOIN-{i}> of a sub-query that was not forked")
        return Reject(f"<JOIN-{i}> once more") if str(i) in view.joined else Join(str(i))

    def returns(self, child: ChildResult) -> bool:
        """Whether a worker wrote ``<RETURN>`` and came to its own end."""
        return child.ended in ("stop", "eos") and self.last_inside(child.sampled, "return") is not None

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """What the worker returned, and ``</JOIN-i>``."""
        results = [token for child in children if self.returns(child) for token in self._result(child)]
        i = JOINED.get(self.vocabulary.tag_at_end(view.sampled, JOINED) or "", 1)
        return Continuation((Insert((*results, *self.vocabulary.encode(f"</JOIN-{i}>"))),))

    def _result(self, child: ChildResult) -> tuple[int, ...]:
        """What a worker returned: the tokens that it sampled; where a tag is several tokens, its text once more."""
        if self.vocabulary.ids is not None:
            stops = [match.stop for match in self.vocabulary.meant(child.sampled) if match.name == "return"]
            return tuple(child.sampled[stops[-1] : -1])  # the last token ended it
        ids = child.sampled[:-1] if child.ended == "eos" else child.sampled
        return self.vocabulary.encode(self.last_inside(ids, "return") or "")

    def answer(self, view: ThreadView) -> str | None:
        """What stands in ``<ANSWER>``."""
        return self.answer_inside(view, "answer")
