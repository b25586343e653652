"""No grammar: one thread from the prompt to the end of text, the sequential baseline of every other dialect.

A tag that the model writes is text like any other.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    Continuation,
    Continue,
    Finish,
    Stops,
    ThreadView,
)
from parallel_reason.dialects.form import Form
from parallel_reason.text import decode
from parallel_reason.trace.thread import JoinRule


@dataclass(frozen=True)
class Sequential:
    """Never forks.

    Attributes:
        tokenizer: of the model.
    """

    name: ClassVar[str] = "none"
    tags: ClassVar[dict[str, str]] = {}
    tokenizer: Any = field(repr=False)

    @classmethod
    def bind(cls, tokenizer: Any, **options: Any) -> "Sequential":
        """Any vocabulary will do; there are no options."""
        return cls(tokenizer, **options)

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """Nothing joins; every engine can do this rule."""
        return "message"

    @property
    def join_rule(self) -> JoinRule:
        """See `joins_by`."""
        return self.joins_by()

    @property
    def shares_prefix(self) -> bool:
        """There are no children."""
        return True

    @property
    def form(self) -> Form:
        """A text of any form."""
        return Form()

    @property
    def joins_on_first(self) -> bool:
        """There are no children."""
        return False

    def stops(self, depth: int) -> Stops:
        """Only the model's own end of text."""
        return Stops()

    def step(self, view: ThreadView) -> Action:
        """Sample to the end of text."""
        return Continue() if view.stopped_at == "start" else Finish()

    def returns(self, child: ChildResult) -> bool:
        """There are no children."""
        return False

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """Never called: nothing forks."""
        return Continuation(())

    def answer(self, view: ThreadView) -> str | None:
        """All that was sampled, without the end of text; None if that is blank."""
        ids = view.sampled[:-1] if view.stopped_at == "eos" else view.sampled
        return decode(self.tokenizer, ids).strip() or None
