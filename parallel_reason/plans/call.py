"""`Call`: one node of a plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from parallel_reason.plans.references import references_in


@dataclass(frozen=True)
class Call:
    """A call of a tool, which starts when all that it needs has finished.

    Attributes:
        id: unique in the plan.
        tool: a name among the tools of the plan, or a function; plain or async.
        args, kwargs: what it is called with; may hold references to earlier results.
        after: ids of calls that must have finished first, beside those whose results it uses.
        deadline_s: seconds that it may run; None for the plan's own.
        duration: how long it is expected to run, in any unit; where slots are scarce, calls with the longest way to the
            end of the plan go first.
        written: the text of which it was read.
    """

    id: str
    tool: str | Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    deadline_s: float | None = None
    duration: float = 1.0
    written: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of all calls that must have finished first, each once."""
        used = (ref.id for ref in references_in((self.args, dict(self.kwargs))))
        return tuple(dict.fromkeys([*used, *self.after]))


@dataclass(frozen=True)
class Problem:
    """Something in a plan's text that could not be used; the rest of the plan goes on."""

    text: str
