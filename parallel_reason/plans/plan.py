"""`Plan`: a plan written in Python."""

from collections.abc import Callable
from typing import Any

from parallel_reason.plans.call import Call
from parallel_reason.plans.references import Ref
from parallel_reason.plans.result import PlanResult
from parallel_reason.plans.run import AnyPlanLimits, OnOutcome, run_plan


class Plan:
    r"""Calls of functions, each of which starts as soon as its inputs are there.

    ::

        plan = Plan()
        pages = [plan.call(search, name) for name in ("Mount Everest", "K2")]
        higher = plan.call(ask, text("Which is higher?\n", *pages))
        result = await plan.run()
        result[higher]
    """

    def __init__(self) -> None:
        """No call yet."""
        self.calls: list[Call] = []

    def call(
        self,
        tool: Callable[..., Any],
        /,
        *args: Any,
        after: tuple[Ref, ...] = (),
        deadline_s: float | None = None,
        duration: float = 1.0,
        **kwargs: Any,
    ) -> Ref:
        """One more call; what is returned stands for its result in arguments of later ones.

        Args:
            tool: plain or async.
            args, kwargs: what it is called with; results, and `text` with results, among them at any depth of lists,
                tuples, sets and dicts.
            after: results that it does not use and waits for.
            deadline_s, duration: as of `Call`.
        """
        ref = Ref(str(len(self.calls) + 1))
        needed = tuple(each.id for each in after)
        self.calls.append(Call(ref.id, tool, args, kwargs, needed, deadline_s, duration))
        return ref

    async def run(self, limits: AnyPlanLimits | None = None, *, on_outcome: OnOutcome | None = None) -> PlanResult:
        """Run all calls; see `run_plan`."""
        return await run_plan(self.calls, limits=limits, on_outcome=on_outcome)
