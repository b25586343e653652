"""One trace on an engine: decodes its threads, forks and joins them where the dialect says, within the limits.

A trace is a tree of asyncio tasks over `transitions`. Nothing that a model writes can raise here: a fork that cannot be
read is recorded and the thread goes on, and a bound that is reached ends the thread with a status that names it. What
an engine, a dialect or a callback raises ends its thread as failed (`TraceRun._run_thread`, the only place). A child is
cancelled by aborting its request, so that what it wrote is kept.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parallel_reason.dialects.base import (
    Continuation,
    Dialect,
    Insert,
    Join,
    Rewrite,
    StartFork,
    ids_of,
)
from parallel_reason.engines.admission import TraceBlocks
from parallel_reason.engines.base import Engine, TokenDelta
from parallel_reason.errors import ParallelReasonError, first_line
from parallel_reason.limits import Limits
from parallel_reason.runtime import transitions
from parallel_reason.runtime.budget import Allotment, Bound, next_tokens
from parallel_reason.runtime.events import (
    Event,
    ForkJoined,
    ThreadEnded,
    ThreadStarted,
    TokensSampled,
)
from parallel_reason.runtime.live_thread import LiveFork, LiveThread
from parallel_reason.runtime.requests import End, ThreadRequests
from parallel_reason.runtime.running import RunningThread
from parallel_reason.sampling import SamplingParams
from parallel_reason.text import TextStream, decode

Emit = Callable[[Event], None]
_ages = itertools.count()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run; the session makes a `Trace` of it.

    Attributes:
        root: the tree of live threads, all of which have ended.
        answer: as the dialect reads it; None if the root did not finish, or has none.
        errors: what was raised, as ``Type: message``.
        wall_s, first_token_s: see `Ledger`; ``kv_blocks`` too.
    """

    root: LiveThread
    answer: str | None
    errors: list[str]
    wall_s: float
    first_token_s: float | None
    kv_blocks: int


class TraceRun:
    """One trace being made."""

    def __init__(
        self,
        engine: Engine,
        dialect: Dialect,
        sampling: SamplingParams,
        limits: Limits,
        *,
        id: str,
        prompt: list[int],
        sample: int = 0,
        emit: Emit | None = None,
    ) -> None:
        """Nothing has run yet.

        Args:
            id: of the trace.
            prompt: token ids, at least one.
            sample: number of this trace among those of the same prompt and seed.
            emit: called with every event but `TraceFinished`.
        """
        self.engine = engine
        self.dialect = dialect
        self.sampling = sampling
        self.limits = limits
        self.id = id
        self.emit = emit
        self.root: RunningThread = RunningThread(transitions.start(prompt), Allotment(limits.tokens, limits.forks))
        self.blocks = TraceBlocks(engine.admission, next(_ages))
        self.noise = None if sampling.seed is None else f"{sampling.seed}/{sample}/{prompt}"
        self.requests = ThreadRequests(
            engine, dialect, sampling, limits, id, self.noise, self.blocks, self.now, self._saw
        )
        self._started = 0.0
        self._first_token: float | None = None
        self._cancelling: set[asyncio.Task[None]] = set()
        self._beside = asyncio.TaskGroup()

    async def run(self) -> RunResult:
        """Run to the end; raises only if its task is cancelled."""
        self._started = time.perf_counter()
        alarm = None
        if self.limits.deadline_s is not None:
            late = self.limits.name("deadline_s")
            alarm = asyncio.get_running_loop().call_later(self.limits.deadline_s, self.cancel, late)
        try:
            async with self._beside:
                await self._run_root()
        finally:
            if alarm:
                alarm.cancel()
            await asyncio.gather(*self._cancelling, return_exceptions=True)
            for thread in self.root.below():
                thread.kv.release()
            self.blocks.close()
        return RunResult(
            self.root.live, self._answer(), self.requests.errors, self.now(), self._first_token, self.blocks.most
        )

    async def _run_root(self) -> None:
        """Run the first thread to its end."""
        await self._run_thread(self.root)

    def _answer(self) -> str | None:
        """What the dialect reads in the root; what it raises is noted."""
        live = self.root.live
        if live.status != "finished":
            return None
        try:
            answer = self.dialect.answer(live.thread_view()) or None
        except Exception as error:  # of a dialect of another package
            self.failure(live, error)
            return None
        stop = live.stop_reason.strip() if live.stopped_by_caller else ""
        return answer.rpartition(stop)[0].strip() if answer and stop and stop in answer else answer

    def cancel(self, reason: str) -> None:
        """Stop the trace soon, with all its threads; what they wrote is kept."""
        self._cancel_soon([self.root], reason)

    def _cancel_soon(self, threads: list[RunningThread], reason: str) -> None:
        task = asyncio.ensure_future(self._cancel(threads, reason))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _run_thread(self, thread: RunningThread, siblings: Sequence[RunningThread] = ()) -> None:
        """Run a thread to its end. Whatever is raised is the status of the thread: the only such place."""
        live = thread.live
        thread.text = TextStream(self.engine.tokenizer) if self.emit else None
        try:
            self._started_event(live)
            await self._decode(thread)
            transitions.note_failed_blocks(live, self.dialect, self.engine.tokenizer)
            if siblings and thread.cancelled is None and self.dialect.returns(live.result()):
                await self._cancel([one for one in siblings if one.cancelled is None], f"joined on {live.label}")
        except Exception as error:
            transitions.end(live, "failed", self.failure(live, error))
        finally:
            if thread.dealer is not None:
                thread.dealer.end(thread.number)
        if thread.beside:
            self._cancel_soon(thread.beside, f"thread {live.label} ended before it joined")
        if not self.engine.capabilities.graft:
            self.blocks.give_back(thread.blocks)
        live.text = decode(self.engine.tokenizer, [i for i in live.sampled if i not in self.engine.eos_ids])
        self._ended_event(live, thread.text)

    async def _decode(self, thread: RunningThread) -> None:
        """Sample, fork and join until the thread ends."""
        live = thread.live
        sampling_on = await self._step(thread)
        while sampling_on:
            sampling = self.sampling.of(live.label)
            tokens, bound = next_tokens(live, thread.left, self.limits, self.requests.window, sampling)
            if tokens == 0:
                if bound == self.limits.name("tokens") and await self._more(thread, "tokens"):
                    continue
                end: End = ("length", bound) if thread.cancelled is None else ("cancelled", thread.cancelled)
                transitions.end(live, *end)
                return
            if not await self.requests.sample(thread, tokens, stream=self.emit is not None):
                return
            if thread.stopped:
                live.stopped_at = transitions.stopped_at(
                    live.newest, self.dialect.stops(live.depth), self.engine.eos_ids
                )
                sampling_on = await self._step(thread)

    async def _step(self, thread: RunningThread) -> bool:
        """Apply what the dialect says of a thread that stopped; whether it samples on."""
        live = thread.live
        action = transitions.next_action(self.dialect, live, self.engine.tokenizer)
        if isinstance(action, StartFork):
            if not await self._may_fork(thread):
                return False
            return await self._fork(thread, action) if action.key is None else self._fork_beside(thread, action)
        if isinstance(action, Join):
            return await self._join_beside(thread, action)
        reason = transitions.stop_text(live.sampled, self.dialect.stops(live.depth), self.engine.tokenizer)
        return transitions.apply(live, action, reason, self.now())

    async def _may_fork(self, thread: RunningThread) -> bool:
        """Use one of the forks that are left, or end the thread."""
        if thread.live.depth >= self.limits.depth:
            transitions.end(thread.live, "length", self.limits.name("depth"))
            return False
        if thread.left.forks == 0 and not await self._more(thread, "forks"):
            reason = thread.cancelled
            transitions.end(thread.live, *(("cancelled", reason) if reason else ("length", self.limits.name("forks"))))
            return False
        thread.left.forks -= 1
        return True

    async def _more(self, thread: RunningThread, bound: Bound) -> bool:
        """Wait until siblings leave more of a bound; whether they did."""
        if thread.dealer is None or thread.cancelled is not None:
            return False
        return await thread.dealer.more(thread.number, bound) and thread.cancelled is None

    async def _fork(self, thread: RunningThread, action: StartFork) -> bool:
        """Run the children to their ends, and join; whether the parent samples on."""
        live, rule = thread.live, self.dialect.join_rule
        transitions.rewrite(live, Rewrite(action.take_back, action.inserts), self.now())
        started = self.now()
        fork = transitions.fork(live, rule, self.dialect.shares_prefix, action.children, started)
        try:
            end = await self.requests.cover(thread)
            if end is None:
                thread.start_children(fork, self.limits.children)
                await self._run_children(thread)
                continuation = self.dialect.join(live.thread_view(), [child.live.result() for child in thread.children])
                end = await self._close_children(thread, continuation)
                if rule == "graft" and not ids_of(continuation.inserts):  # its last token would see its siblings' KV
                    end = end or ("failed", f"dialect {self.dialect.name!r} wrote nothing after a graft")
        finally:
            live.waiting_s += self.now() - started
            for child in (child for child in fork.children if child.status is None):
                self._never_ran(child, f"thread {live.label} ended before it ran")
        thread.join_children(rule, len(live.view), self.blocks)
        if end is not None:
            transitions.end(live, *end)
            return False
        return self._go_on(thread, fork, continuation)

    def _go_on(self, thread: RunningThread, fork: LiveFork, continuation: Continuation) -> bool:
        """Join a fork all of whose children have ended; whether the parent samples on."""
        live = thread.live
        transitions.join(live, fork)
        transitions.write(live, continuation.inserts, self.now())
        if self.emit:
            labels = tuple(child.label for child in fork.children)
            self.emit(ForkJoined(self.id, live.label, labels, self._text(continuation.inserts)))
        if continuation.ends is not None:
            transitions.end(live, "finished", continuation.ends)
        return continuation.ends is None

    def _fork_beside(self, thread: RunningThread, action: StartFork) -> bool:
        """Start children and let the parent sample on."""
        live = thread.live
        transitions.rewrite(live, Rewrite(action.take_back, action.inserts), self.now())
        fork = transitions.fork(
            live, self.dialect.join_rule, self.dialect.shares_prefix, action.children, self.now(), action.key
        )
        for child in fork.children[self.limits.children :]:
            self._never_ran(child, self.limits.name("children"))
        may_fork = live.depth + 1 < self.limits.depth
        for started in thread.start_beside(fork, self.limits.children, may_fork=may_fork):
            started.cancelled = thread.cancelled
            started.task = self._beside.create_task(self._run_beside(started))
        return True

    async def _run_beside(self, thread: RunningThread) -> None:
        """Run a thread to its end; its parent, which goes on meanwhile, needs nothing of its KV."""
        await self._run_thread(thread)
        thread.kv.release()
        self.blocks.give_back(thread.blocks)

    async def _join_beside(self, thread: RunningThread, action: Join) -> bool:
        """Wait for the children of an earlier fork, and join; whether the parent samples on."""
        live, started = thread.live, self.now()
        fork = live.beside(action.key)
        tasks = [child.task for child in thread.beside if child.live in fork.children and child.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        live.waiting_s += self.now() - started
        continuation = self.dialect.join(live.thread_view(), [child.result() for child in fork.children])
        thread.join_beside(fork)
        return self._go_on(thread, fork, continuation)

    async def _run_children(self, thread: RunningThread) -> None:
        """All children that the limits allow, at once; the rest end as cancelled."""
        for child in thread.children[self.limits.children :]:
            self._never_ran(child.live, self.limits.name("children"))
        running = thread.children[: self.limits.children]
        async with asyncio.TaskGroup() as group:
            for child in running:
                child.cancelled = thread.cancelled
                siblings = [one for one in running if one is not child] if self.dialect.joins_on_first else []
                group.create_task(self._run_thread(child, siblings))

    def _never_ran(self, live: LiveThread, reason: str) -> None:
        self._started_event(live)
        transitions.end(live, "cancelled", reason)
        self._ended_event(live, None)

    async def _close_children(self, thread: RunningThread, continuation: Continuation) -> End | None:
        """Rewrite the children's ends as a join asks, and have the KV that a graft will see; how that failed."""
        for child, close in zip(thread.children, continuation.closes, strict=False):
            transitions.rewrite(child.live, close, self.now())
        if self.dialect.join_rule != "graft":
            return None
        ends = await asyncio.gather(*(self.requests.cover(child) for child in thread.children if child.live.ran))
        return next((end for end in ends if end is not None), None)

    async def _cancel(self, threads: list[RunningThread], reason: str) -> None:
        """Stop threads and all below them; what they wrote is kept."""
        every = [below for thread in threads for below in thread.below()]
        for thread in every:
            thread.cancelled = thread.cancelled or reason
            thread.blocks.refuse()
            if thread.dealer is not None:
                thread.dealer.withdraw(thread.number)
        if requests := [thread.request for thread in every if thread.request is not None]:
            await self.engine.abort(requests)

    def failure(self, live: LiveThread, error: Exception) -> str:
        """Note an error; what it says, in one line."""
        said = f"{type(error).__name__}: {first_line(error)}"
        self.requests.errors.append(said)
        if isinstance(error, ParallelReasonError):
            return first_line(error)
        _log.error("thread %s of trace %s failed", live.label, self.id, exc_info=error)
        return said

    def _saw(self, thread: RunningThread, delta: TokenDelta) -> None:
        """Tokens came."""
        if self._first_token is None:
            self._first_token = self.now()
        if self.emit and thread.text:
            self.emit(
                TokensSampled(
                    trace=self.id,
                    label=thread.live.label,
                    ids=tuple(delta.ids),
                    text=thread.text.add(delta.ids),
                    logprobs=tuple(delta.logprobs),
                    top_logprobs=tuple(delta.top_logprobs),
                )
            )

    def _started_event(self, live: LiveThread) -> None:
        if self.emit:
            parent = live.label.rpartition(".")[0] or None
            text = self._text(live.header) if parent else decode(self.engine.tokenizer, live.spans[0].ids)
            self.emit(ThreadStarted(self.id, live.label, parent, text))

    def _ended_event(self, live: LiveThread, text: TextStream | None) -> None:
        if not self.emit:
            return
        if text and (rest := text.finish()):
            self.emit(TokensSampled(self.id, live.label, (), rest))
        self.emit(ThreadEnded(self.id, live.label, live.status or "failed", live.stop_reason))

    def _text(self, inserts: tuple[Insert, ...]) -> str:
        return decode(self.engine.tokenizer, ids_of(inserts))

    def now(self) -> float:
        """Seconds from the start of the trace."""
        return time.perf_counter() - self._started
