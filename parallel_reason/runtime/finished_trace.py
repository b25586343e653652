"""The record of a trace that has ended."""

from typing import Any

from parallel_reason.runtime.live_thread import records
from parallel_reason.runtime.prompts import RenderedPrompt
from parallel_reason.runtime.run import RunResult
from parallel_reason.runtime.versions import versions
from parallel_reason.trace import Trace, tally


def finished_trace(prompt: RenderedPrompt, result: RunResult, **fields: Any) -> Trace:
    """A trace of a prompt and what its run came to.

    Args:
        fields: which trace it is, and how it was made.
    """
    threads = records(result.root)
    return Trace(
        prompt=prompt.text,
        prompt_ids=prompt.ids,
        messages=prompt.messages,
        versions=versions(),
        threads=threads,
        answer=result.answer,
        errors=result.errors,
        ledger=tally(threads, result.wall_s, result.first_token_s, result.kv_blocks),
        **fields,
    )
