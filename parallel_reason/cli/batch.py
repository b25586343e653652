"""Prompts run at once under a progress bar, every trace written as it finishes; or one prompt, thread by thread."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from parallel_reason.cli.console import counting
from parallel_reason.cli.output import TraceOutput
from parallel_reason.cli.tree import print_ended
from parallel_reason.errors import EngineError
from parallel_reason.limits import Limits
from parallel_reason.runtime.prompts import Prompt
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

if TYPE_CHECKING:
    from parallel_reason.llm import ParallelLLM


def run_batch(
    llm: "ParallelLLM",
    prompts: Sequence[Prompt],
    output: TraceOutput,
    console: Console,
    *,
    name: str = "traces",
    sampling: SamplingParams | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> list[Trace]:
    """Run prompts at once, ``sampling.n`` traces of each; the bar ``name`` is on ``console``.

    Args:
        options: further ones of `ParallelLLM.agenerate`.

    Raises:
        BrokenPipeError: standard output was closed. If traces went nowhere else, the rest was cancelled.
    """
    sampling = sampling or SamplingParams()
    with counting(console, name, len(prompts) * sampling.n) as advance:

        async def run() -> list[Trace]:
            loop = asyncio.get_running_loop()

            def on_trace(trace: Trace) -> None:
                output.add(trace)
                advance()
                if not output.wanted:
                    loop.call_soon_threadsafe(work.cancel)

            work = asyncio.ensure_future(llm.agenerate(list(prompts), sampling, limits, on_trace=on_trace, **options))
            try:
                return await work
            except asyncio.CancelledError:
                if output.wanted:
                    raise
                return []

        traces = asyncio.run(run())
    if output.closed_pipe:
        raise output.closed_pipe
    return traces


def run_one(llm: "ParallelLLM", prompt: Prompt, output: TraceOutput, **options: Any) -> list[Trace]:
    """Run one prompt, and print a line for each of its threads when it ends.

    Args:
        options: those of `ParallelLLM.stream`.

    Raises:
        BrokenPipeError: standard output was closed. If the trace went nowhere else, it was cancelled.
    """

    async def run() -> Trace | None:
        return await print_ended(llm.stream(prompt, **options), llm.tokenizer, llm.engine.eos_ids, output.line)

    trace = asyncio.run(run())
    if trace:
        output.add(trace, shown=True)
    if output.closed_pipe:
        raise output.closed_pipe
    return [trace] if trace else []


def check_none_failed(traces: Sequence[Trace]) -> None:
    """Raise EngineError if traces failed, with the reason of the first."""
    failed = [trace.stop_reason for trace in traces if trace.status == "failed"]
    if failed:
        raise EngineError(f"{len(failed)} of {len(traces)} traces failed, the first because: {failed[0]}")
