"""One call of a program that samples: requests of its thread, whose tokens are added to it as they are read."""

import asyncio
from collections.abc import AsyncGenerator

from parallel_reason.engines.base import RequestOutput, TokenDelta
from parallel_reason.errors import InputError
from parallel_reason.runtime import transitions
from parallel_reason.runtime.budget import Allotment, next_tokens
from parallel_reason.runtime.program_call import Call
from parallel_reason.runtime.program_run import ProgramRun
from parallel_reason.runtime.program_state import ProgramState
from parallel_reason.runtime.requests import Decoding
from parallel_reason.runtime.token_pool import TokenShare

IDLE_CALLS = (
    10_000  # calls in a row that may find their thread ended, before a program counts as one that never returns
)


async def tokens(run: ProgramRun, state: ProgramState, call: Call, *, each: bool) -> AsyncGenerator[TokenDelta, None]:
    """Sample; with ``each``, tokens are yielded one by one as they are added to the thread, else none are.

    A thread has the tokens that were read: who stops reading stops the request. What the engine sampled beyond them
    is dropped, so that what the thread samples next does not depend on how far the engine had come.
    """
    if not run.check(state) or state.ended:
        await _found_ended(run)
        return
    if state.grafted == len(state.live.view):
        raise InputError(f"thread {state.live.label} joined by graft: write something before it samples")
    share = state.call = run.pool.share()
    state.streams, left = each, call.max_tokens
    try:
        await _prepare(run, state)
        while granted := await _granted(run, state, share, call, left):
            stream = each or bool(run.emit)
            decoding = run.requests.decode(state, granted, call.sampling, call.stops, stream=stream)
            state.decoding = decoding
            while (delta := await decoding.reports.get()) is not None:
                for part in _singles(delta) if each else [delta]:
                    if state.call is not share:
                        return
                    _add(run, state, decoding, part)
                    if each:
                        yield part
            if state.call is not share:
                return
            state.decoding = None
            output = await decoding.task
            share.give_back(granted - len(output.ids))
            left = None if left is None else left - len(output.ids)
            if _is_over(run, state, call, output) or left == 0:
                return
    except Exception as error:  # of the engine: it is the status of this thread
        transitions.end(state.live, "failed", run.failure(state.live, error))
    finally:
        if state.call is share:
            run.leave(state)
        if state.live.status is not None:
            run.end(state, state.live.status, state.live.stop_reason)


async def _prepare(run: ProgramRun, state: ProgramState) -> None:
    """Have the KV that the first request begins with; the thread ends if that fails."""
    if state.before is not None:
        await asyncio.wait([state.before])
        state.before = None
    if end := await run.kv.ready(state):
        transitions.end(state.live, *end)


async def _granted(run: ProgramRun, state: ProgramState, share: TokenShare, call: Call, left: int | None) -> int:
    """How many tokens the next request may sample; 0 if the thread has ended, or does so here at a bound."""
    live, limits = state.live, run.limits
    most, bound = next_tokens(live, Allotment(None, 0), limits, run.requests.window, call.thread)
    if most and state.cancelled is None and live.status is None:
        most = await share.ask(most if left is None else min(most, left))
        bound = limits.name("tokens")
    if state.cancelled is not None:
        transitions.end(live, "cancelled", state.cancelled)
    elif not most:
        transitions.end(live, "length", bound)
    return most if live.status is None else 0


def _is_over(run: ProgramRun, state: ProgramState, call: Call, output: RequestOutput) -> bool:
    """Whether a call is over after one of its requests; the thread may have ended."""
    live = state.live
    if output.finish_reason == "abort":
        transitions.end(live, "cancelled", state.cancelled or "aborted by the engine")
    elif output.finish_reason == "length" and not output.ids:
        transitions.end(live, "length", f"limits.context={run.requests.window}")
    state.stopped = output.finish_reason == "stop"
    if state.stopped:
        run.requests.apply_stop(state, call.sampling, call.stops)
    if state.stopped and live.status is None and output.ids:
        ends = frozenset() if call.sampling.ignore_eos else run.engine.eos_ids - call.stops.ids
        state.at_end = live.newest in ends
    return state.stopped or live.status is not None


def _add(run: ProgramRun, state: ProgramState, decoding: Decoding, delta: TokenDelta) -> None:
    """Add tokens to a thread."""
    versions = [delta.policy_version] * len(delta.ids)
    times = decoding.started, run.now()
    transitions.sample(state.live, transitions.Sample(delta.ids, delta.logprobs, delta.top_logprobs, versions, *times))
    state.logprobs += delta.logprobs
    state.top_logprobs += delta.top_logprobs
    run.idle_calls = 0


def _singles(delta: TokenDelta) -> list[TokenDelta]:
    """The tokens of a report, one by one."""
    tops = [[top] for top in delta.top_logprobs] or [[]] * len(delta.ids)
    return [
        TokenDelta([token], [logprob], top, delta.policy_version)
        for token, logprob, top in zip(delta.ids, delta.logprobs, tops, strict=True)
    ]


async def _found_ended(run: ProgramRun) -> None:
    """Let others run; a loop that never sees that its threads have ended would stop all traces."""
    run.idle_calls += 1
    if run.idle_calls > IDLE_CALLS:
        raise InputError(f"the last {IDLE_CALLS} calls found their thread ended: look at t.ended in the loop")
    await asyncio.sleep(0)
