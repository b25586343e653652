"""Prompts run at once under a progress bar, every trace written as it finishes."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from parallel_reason.cli.console import progress_bar
from parallel_reason.cli.output import TraceOutput
from parallel_reason.errors import EngineError
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

if TYPE_CHECKING:
    from parallel_reason.llm import ParallelLLM


def run_batch(
    llm: "ParallelLLM",
    prompts: Sequence[str],
    output: TraceOutput,
    console: Console,
    *,
    name: str = "traces",
    sampling: SamplingParams | None = None,
    limits: Limits | None = None,
) -> list[Trace]:
    """Run prompts at once, ``sampling.n`` traces of each; the bar ``name`` is on ``console``.

    Raises:
        BrokenPipeError: standard output was closed. If traces went nowhere else, the rest was cancelled.
    """
    sampling = sampling or SamplingParams()
    with progress_bar(console) as progress:
        bar = progress.add_task(name, total=len(prompts) * sampling.n)

        async def run() -> list[Trace]:
            loop = asyncio.get_running_loop()

            def on_trace(trace: Trace) -> None:
                output.add(trace)
                progress.advance(bar)
                if not output.wanted:
                    loop.call_soon_threadsafe(work.cancel)

            work = asyncio.ensure_future(llm.agenerate(list(prompts), sampling, limits, on_trace=on_trace))
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


def check_none_failed(traces: Sequence[Trace]) -> None:
    """Raise EngineError if traces failed, with the reason of the first."""
    failed = [trace.stop_reason for trace in traces if trace.status == "failed"]
    if failed:
        raise EngineError(f"{len(failed)} of {len(traces)} traces failed, the first because: {failed[0]}")
