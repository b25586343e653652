"""What became of a plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from parallel_reason.errors import InputError
from parallel_reason.plans.call import Call
from parallel_reason.plans.references import Ref, filled

Status = Literal["finished", "failed", "skipped", "cancelled"]


@dataclass(frozen=True)
class Outcome:
    """What became of one call.

    Attributes:
        status: ``skipped`` if something that it needs did not finish.
        reason: why it did not finish, in one line.
        value: what it returned.
        started_s, ended_s: seconds from the start of the plan; None if it never ran.
    """

    status: Status
    reason: str = ""
    value: Any = None
    started_s: float | None = None
    ended_s: float | None = None

    def since(self, start: float) -> "Outcome":
        """With times from ``start`` on."""
        times = (None if at is None else at - start for at in (self.started_s, self.ended_s))
        return Outcome(self.status, self.reason, self.value, *times)

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return 0.0 if self.started_s is None or self.ended_s is None else self.ended_s - self.started_s


@dataclass(frozen=True)
class PlanResult:
    """All calls of a plan, in the order in which they came, and what became of each.

    ``result[call_or_ref]`` is a value, or raises InputError with the reason why there is none.

    Attributes:
        problems: what in the plan's text could not be used, and what ended its writing early.
        wall_s: seconds from the start to the end of the last call.
    """

    calls: Mapping[str, Call]
    outcomes: Mapping[str, Outcome]
    problems: tuple[str, ...]
    wall_s: float

    @property
    def values(self) -> dict[str, Any]:
        """Call id to value, of the calls that finished."""
        return {name: each.value for name, each in self.outcomes.items() if each.status == "finished"}

    @property
    def ok(self) -> bool:
        """Whether every call finished and the plan was read without a problem."""
        return not self.problems and len(self.values) == len(self.calls)

    @property
    def critical_path_s(self) -> float:
        """Seconds of the longest chain of calls that needed one another, by how long each ran."""
        return critical_path({name: (call.needs, self.outcomes[name].seconds) for name, call in self.calls.items()})

    def __getitem__(self, which: "str | Ref") -> Any:
        ref = which if isinstance(which, Ref) else Ref(which)
        outcome = self.outcomes.get(ref.id)
        if outcome is None:
            raise InputError(f"the plan has no call {ref.id!r}; it has {', '.join(self.calls) or 'none'}")
        if outcome.status != "finished":
            raise InputError(f"call {ref.id} has no result; it {outcome.status}: {outcome.reason}")
        return filled(ref, {ref.id: outcome.value}, 0)


def critical_path(graph: Mapping[str, tuple[tuple[str, ...], float]]) -> float:
    """The longest chain of a graph, id to what it needs and its duration; an unknown need, or a cycle, counts 0."""
    ends: dict[str, float] = {}
    for start in graph:
        stack, open_ = [start], set()
        while stack:
            name = stack[-1]
            needs, duration = graph[name]
            missing = [need for need in needs if need in graph and need not in ends and need not in open_]
            if name not in ends and missing:
                open_.add(name)
                stack += missing
                continue
            stack.pop()
            ends.setdefault(name, duration + max((ends.get(need, 0.0) for need in needs), default=0.0))
    return max(ends.values(), default=0.0)
