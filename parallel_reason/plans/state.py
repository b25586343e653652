"""`PlanState`: which calls of a plan wait, are ready, run and have ended. Pure: it starts nothing, and has no clock."""

from collections.abc import Mapping
from typing import Any

from parallel_reason.plans.call import Call
from parallel_reason.plans.result import Outcome


class PlanState:
    """A plan that may still grow.

    A call is in exactly one of: ``waiting``, ``ready``, ``running``, ``outcomes``. A call may need one that comes
    later; one that never comes is found when the plan is closed, as are cycles.
    """

    def __init__(self, known: Mapping[str, Any] | None = None, *, ranked: bool = True) -> None:
        """No call yet.

        Args:
            known: results of an earlier plan by id, until a call of this one takes the id.
            ranked: whether the call with the longest way to the end of the plan starts first; else the oldest.
        """
        self.calls: dict[str, Call] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.waiting: dict[str, set[str]] = {}  # id to what it still waits for
        self.ready: list[str] = []
        self.running: set[str] = set()
        self.results = dict(known or {})
        self.closed = False
        self._dependents: dict[str, list[str]] = {}
        self._ranks: dict[str, float] | None = None  # None after a change
        self._ranked = ranked

    @property
    def done(self) -> bool:
        """Whether no call is left and none will come."""
        return self.closed and len(self.outcomes) == len(self.calls)

    def add(self, call: Call) -> None:
        """One more call; its id must be new, and the plan open."""
        self.calls[call.id] = call
        self.results.pop(call.id, None)
        self._ranks = None
        needs = call.needs
        for need in needs:
            self._dependents.setdefault(need, []).append(call.id)
        self.waiting[call.id] = {need for need in needs if need not in self.results}
        lost = next((need for need in needs if need in self.outcomes and need not in self.results), None)
        if lost is not None:
            self.end(call.id, _skipped(lost, self.outcomes[lost]))
        elif not self.waiting[call.id]:
            self._set_ready(call.id)

    def start(self) -> Call | None:
        """The call to start next, which now runs; None if none is ready."""
        if not self.ready:
            return None
        chosen = self.ready[0]
        if self._ranked and len(self.ready) > 1:
            self._ranks = self._ranks or self._new_ranks()
            chosen = max(self.ready, key=self._ranks.__getitem__)
        self.ready.remove(chosen)
        self.running.add(chosen)
        return self.calls[chosen]

    def end(self, name: str, outcome: Outcome) -> None:
        """A call has ended. If it did not finish, all that need it are skipped, and all that need those."""
        ended = [(name, outcome)]
        for name, outcome in ended:
            if name in self.outcomes:
                continue
            self._take(name)
            self.outcomes[name] = outcome
            if outcome.status != "finished":
                ended += [(dependent, _skipped(name, outcome)) for dependent in self._dependents.get(name, [])]
                continue
            self.results[name] = outcome.value
            for dependent in self._dependents.get(name, []):
                if dependent in self.waiting:
                    self.waiting[dependent].discard(name)
                    if not self.waiting[dependent]:
                        self._set_ready(dependent)

    def close(self) -> None:
        """No call will come; those that can never start end now: a need that is not in the plan, or a cycle."""
        self.closed = True
        for name in list(self.waiting):
            unknown = min((need for need in self.waiting.get(name, ()) if need not in self.calls), default=None)
            if unknown is not None:
                self.end(name, Outcome("failed", f"needs {unknown}, which is not in the plan"))
        while stuck := self._stuck():
            cycle = _cycle({name: min(self.waiting[name] & stuck) for name in stuck})
            for name in cycle:
                self.end(name, Outcome("failed", f"it is in a cycle: {' -> '.join([*cycle, cycle[0]])}"))

    def _stuck(self) -> set[str]:
        """The calls that wait for what can never end."""
        pending = {name: len(needs) for name, needs in self.waiting.items()}
        will_end = [*self.ready, *self.running]
        for name in will_end:
            for dependent in self._dependents.get(name, []):
                if dependent in pending:
                    pending[dependent] -= 1
                    if pending[dependent] == 0:
                        will_end.append(dependent)
        return self.waiting.keys() - set(will_end)

    def _set_ready(self, name: str) -> None:
        del self.waiting[name]
        self.ready.append(name)

    def _take(self, name: str) -> None:
        self.waiting.pop(name, None)
        self.running.discard(name)
        if name in self.ready:
            self.ready.remove(name)

    def _new_ranks(self) -> dict[str, float]:
        """Of each call that has not ended, the longest way from its start to the end of the plan; 0 in a cycle."""
        left = self.calls.keys() - self.outcomes.keys()
        after = {name: sum(each in left for each in self._dependents.get(name, [])) for name in left}
        ranks = dict.fromkeys(left, 0.0)
        known = [name for name in left if after[name] == 0]
        for name in known:
            ranks[name] += self.calls[name].duration
            for need in self.calls[name].needs:
                if need in left:
                    ranks[need] = max(ranks[need], ranks[name])
                    after[need] -= 1
                    if after[need] == 0:
                        known.append(need)
        return ranks


def _skipped(need: str, outcome: Outcome) -> Outcome:
    """The reason names the call that failed, however long the chain to it."""
    return Outcome("skipped", outcome.reason if outcome.status == "skipped" else f"needs {need}: {outcome.reason}")


def _cycle(step: Mapping[str, str]) -> list[str]:
    """Some cycle that is met when walking from any name by ``step``."""
    path: dict[str, None] = {}
    name = min(step)
    while name not in path:
        path[name] = None
        name = step[name]
    walked = list(path)
    return walked[walked.index(name) :]
