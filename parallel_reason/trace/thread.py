"""A thread of a trace: its spans of tokens, and where it forked.

Every thread stores only the tokens it adds, so the size of a trace is linear in its tokens.

Invariants, checked when a record is made:
- a sampled span has one log-prob a token (or none at all, in a trace that no engine made); other spans have none;
- a fork lies between two spans of its thread: ``0 <= at <= len(spans)``, in order.
"""

from typing import Literal

from pydantic import Field, model_validator

from parallel_reason.record import Record

Origin = Literal["prompt", "sampled", "injected", "copied"]
Status = Literal["finished", "length", "cancelled", "failed"]
JoinRule = Literal["message", "relinearise", "graft"]


class Span(Record):
    """Tokens that one thread adds between two control points.

    Attributes:
        ids: token ids, [tokens].
        origin: who wrote them: the caller, the model, or the runtime; ``copied`` is what a relinearised join writes
            again of the tokens of its children.
        logprobs: natural-log probability of each sampled token under the engine, [tokens], or empty. Of which
            distribution: `Trace.logprobs_mode`.
        top_logprobs: token id to log-prob, of the most likely tokens, for each sampled token, [tokens], or empty.
        shift: how far the first token's position lies from the thread's next position; most often 0.
        taken_back: how many of its newest tokens the thread no longer sees from this span on, their positions being
            used again: a dialect took them back, such as an end of text that a join replaces. They stay in the trace.
            The span itself may be empty.
        started_s, ended_s: seconds from the start of the trace until its first token could be computed, and until its
            last one was there.
        policy_version: which weights sampled it: how many times the engine's weights had been updated; None if the
            model did not sample it, or that is not known.
    """

    ids: list[int]
    origin: Origin
    logprobs: list[float] = Field(default_factory=list)
    top_logprobs: list[dict[int, float]] = Field(default_factory=list)
    shift: int = 0
    taken_back: int = Field(0, ge=0)
    started_s: float = 0.0
    ended_s: float = 0.0
    policy_version: int | None = None

    @model_validator(mode="after")
    def _one_logprob_a_sampled_token(self) -> "Span":
        allowed = {0, len(self.ids)} if self.origin == "sampled" else {0}
        if not {len(self.logprobs), len(self.top_logprobs)} <= allowed:
            raise ValueError(
                f"a {self.origin} span of {len(self.ids)} tokens has {len(self.logprobs)} log-probs and "
                f"{len(self.top_logprobs)} top log-probs"
            )
        return self


class MalformedFork(Record):
    """A fork that the model wrote and the dialect could not read; the thread went on as plain text, or ended.

    Attributes:
        at: how many spans of the thread came before.
        reason: what was wrong, in words.
    """

    at: int
    reason: str


class Fork(Record):
    """The place where a thread forked.

    Attributes:
        at: how many spans of the parent came before; children see those and none later.
        join_rule: how the results came back.
        shares_prefix: whether the children saw the parent's tokens, or only their own header.
        waited: whether the parent waited for its children, and so has them on its critical path.
        joined_at: how many spans of the parent came before the results, if it sampled on while the children ran; None
            if it waited at the fork, or never.
        children: indices in `Trace.threads`, in the order in which the model wrote them.
    """

    at: int
    join_rule: JoinRule
    shares_prefix: bool = True
    waited: bool = True
    joined_at: int | None = None
    children: list[int] = Field(default_factory=list)


class Thread(Record):
    """One line of decoding.

    Attributes:
        label: its path in the tree.
        parent: index of its parent in `Trace.threads`; None for the root.
        spans, forks: in order; a fork's ``at`` says where it lies between the spans.
        malformed: forks that could not be read.
        status: how it ended; ``stop_reason`` says what ended it: a control token, ``limits.depth=2``, an error.
        text: its own sampled tokens as text.
        prefilled_tokens: context tokens that the engine took in for it, over all its requests. ``cached_tokens`` of
            these came from the engine's prefix cache, and ``recomputed_tokens`` were computed although this trace had
            computed them before. None where the engine cannot tell.
        queued_s, running_s, waiting_s: seconds before decoding, decoding, and waiting for its children.
    """

    label: str
    parent: int | None = None
    spans: list[Span] = Field(default_factory=list)
    forks: list[Fork] = Field(default_factory=list)
    malformed: list[MalformedFork] = Field(default_factory=list)
    status: Status
    stop_reason: str = ""
    text: str = ""
    prefilled_tokens: int | None = 0
    cached_tokens: int | None = 0
    recomputed_tokens: int | None = 0
    queued_s: float = 0.0
    running_s: float = 0.0
    waiting_s: float = 0.0

    @model_validator(mode="after")
    def _forks_lie_between_spans(self) -> "Thread":
        places = [0, *(fork.at for fork in self.forks), len(self.spans)]
        if places != sorted(places):
            raise ValueError(f"thread {self.label}: forks at {places[1:-1]} of {len(self.spans)} spans")
        for fork in self.forks:
            if fork.joined_at is not None and not fork.at <= fork.joined_at <= len(self.spans):
                raise ValueError(f"thread {self.label}: a fork at {fork.at} is joined at {fork.joined_at}")
        return self

    @property
    def depth(self) -> int:
        """How many forks lie above it; 0 is the root."""
        return self.label.count(".")

    @property
    def ran(self) -> bool:
        """Whether it sampled anything; a join sees nothing of a thread that did not."""
        return any(span.ids for span in self.spans if span.origin == "sampled")

    def tokens(self, origin: Origin) -> int:
        """How many of its own tokens came from ``origin``."""
        return sum(len(span.ids) for span in self.spans if span.origin == origin)
