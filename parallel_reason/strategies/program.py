"""A strategy as a program, for `ParallelLLM.run` and `Session.run_program`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from parallel_reason.runtime.program import ProgramThread
from parallel_reason.strategies.branches import Strategy
from parallel_reason.strategies.budget import Budget
from parallel_reason.strategies.live import FORCED_ANSWER, AnswerOf, LiveBranches
from parallel_reason.tasks.grading import boxed


def program(
    strategy: Strategy,
    *,
    budget: Budget | dict[str, Any] | None = None,
    answer_of: AnswerOf = boxed,
    probe_text: str = FORCED_ANSWER,
    probe_tokens: int = 16,
    sampling: Mapping[str, Any] | None = None,
) -> Callable[[ProgramThread], Awaitable[str | None]]:
    """The program that runs a strategy: ``llm.run(program(find("esc")), prompts)``. Its answer is that of the trace.

    Args:
        budget: what each trace may spend, a record or a dict of its fields.
        answer_of: the answer in what a path wrote, as a text that is equal where answers are; None for none. By default
            what stands in the last box.
        probe_text, probe_tokens: what is written to ask a path for its answer of now, and how much it may reply.
        sampling: fields of `SamplingParams` for every call, such as ``{"logprobs": 20}``.
    """
    bounds = None if budget is None else Budget.from_caller("budget", budget)

    async def run(thread: ProgramThread) -> str | None:
        branches = LiveBranches(
            thread,
            answer_of=answer_of,
            budget=bounds,
            probe_text=probe_text,
            probe_tokens=probe_tokens,
            sampling=sampling,
        )
        try:
            number = await strategy.run(branches)
        finally:
            await branches.close()
        return None if number < 0 else branches.names[number]

    run.__name__ = run.__qualname__ = strategy.name
    return run
