"""A strategy as a program, for `ParallelLLM.run` and `Session.run_program`."""

from dataclasses import dataclass, field
from typing import Any

from parallel_reason.runtime.program import ProgramThread
from parallel_reason.strategies.branches import Strategy
from parallel_reason.strategies.budget import Budget
from parallel_reason.strategies.live import FORCED_ANSWER, AnswerOf, LiveBranches
from parallel_reason.tasks.grading import boxed


@dataclass(frozen=True)
class StrategyProgram:
    """The program that runs a strategy: see `program`, whose arguments its attributes are."""

    strategy: Strategy
    budget: Budget | None = None
    answer_of: AnswerOf = boxed
    probe_text: str = FORCED_ANSWER
    probe_tokens: int = 16
    sampling: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the strategy; traces have it."""
        return self.strategy.name

    async def __call__(self, thread: ProgramThread) -> str | None:
        """Run the strategy over paths of a thread; what it answers, None for nothing."""
        branches = LiveBranches(
            thread,
            answer_of=self.answer_of,
            budget=self.budget,
            probe_text=self.probe_text,
            probe_tokens=self.probe_tokens,
            sampling=self.sampling,
        )
        try:
            number = await self.strategy.run(branches)
        finally:
            await branches.close()
        return None if number < 0 else branches.names[number]


def program(
    strategy: Strategy,
    *,
    budget: Budget | dict[str, Any] | None = None,
    answer_of: AnswerOf = boxed,
    probe_text: str = FORCED_ANSWER,
    probe_tokens: int = 16,
    sampling: dict[str, Any] | None = None,
) -> StrategyProgram:
    """The program that runs a strategy: ``llm.run(program(find("esc")), prompts)``. Its answer is that of the trace.

    Args:
        budget: what each trace may spend, a record or a dict of its fields.
        answer_of: the answer in what a path wrote, as a text that is equal where answers are; None for none. By default
            what stands in the last box.
        probe_text, probe_tokens: what is written to ask a path for its answer of now, and how much it may reply.
        sampling: fields of `SamplingParams` for every call, such as ``{"logprobs": 20}``.
    """
    bounds = None if budget is None else Budget.from_caller("budget", budget)
    return StrategyProgram(strategy, bounds, answer_of, probe_text, probe_tokens, sampling or {})
