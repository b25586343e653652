"""One trace that a program makes: an async function that forks, samples, scores and joins threads.

It decides which thread does what, and when. What that is, `transitions` say, as for a dialect. A call that a program
makes wrongly raises InputError in it; what happens to a thread (a bound, a cancellation, a fault of the engine) is the
status of that thread, which samples nothing any more. Only what the program itself raises ends the trace as failed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from parallel_reason.dialects.base import ChildSpec, Insert
from parallel_reason.engines.admission import ThreadBlocks
from parallel_reason.errors import InputError
from parallel_reason.runtime import transitions
from parallel_reason.runtime.budget import Allotment
from parallel_reason.runtime.live_thread import LiveFork, LiveThread
from parallel_reason.runtime.program_kv import ProgramKV
from parallel_reason.runtime.program_state import ProgramState
from parallel_reason.runtime.requests import End
from parallel_reason.runtime.run import TraceRun
from parallel_reason.runtime.token_pool import TokenPool
from parallel_reason.text import TextStream, decode
from parallel_reason.trace import Status

GRACE_S = 5.0  # that a program has to return in once its trace was cancelled or met its deadline
NEVER_RAN: End = ("cancelled", "it never sampled")


class ProgramRun(TraceRun):
    """One trace being made by a program.

    Attributes:
        problem: the text of its prompt.
        main: its root.
        pool: of the tokens that it may still sample.
        kv: what its threads begin with.
        idle_calls: how many calls in a row found their thread ended.
    """

    def __init__(
        self, program: Callable[["ProgramRun"], Awaitable[Any]], problem: str, *run: Any, **options: Any
    ) -> None:
        """``run`` and ``options`` are the arguments of `TraceRun`."""
        super().__init__(*run, **options)
        self.problem = problem
        self.main = self.root = ProgramState(self.root.live, Allotment(None, self.limits.forks), bound=True)
        self.pool = TokenPool(self.limits.tokens)
        self.kv = ProgramKV(self.requests, self.blocks, grafts=self.engine.capabilities.graft)
        self.idle_calls = 0
        self._program = program
        self._states = [self.main]
        self._task: asyncio.Task[Any] | None = None
        self._over = False

    async def _run_root(self) -> None:
        self._begun(self.main)
        self._task = asyncio.create_task(_awaited(self._program, self))
        end: End = ("cancelled", "the call was cancelled")
        try:
            await asyncio.wait([self._task])
            end = self._outcome(self._task)
        finally:
            await self._end_all(self._task, end)

    def _outcome(self, task: "asyncio.Task[Any]") -> End:
        """How the root ends by what became of the program, whose answer is taken."""
        if task.cancelled():
            if self.main.cancelled is not None:
                return "cancelled", self.main.cancelled
            return "failed", self.failure(self.main.live, RuntimeError("the program was cancelled from inside"))
        error = task.exception()
        if isinstance(error, Exception):
            reason = self.failure(self.main.live, error)
            if self.main.cancelled is None:
                transitions.fail(self.main.live, reason)
            return "failed", reason
        if self.main.answer is None and task.result() is not None:
            self.main.answer = str(task.result())
        return "finished", "the program returned"

    async def _end_all(self, task: "asyncio.Task[Any]", end: End) -> None:
        """End all threads, those that still sample as cancelled, and give back their KV."""
        self._over = True
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        self.stop([state for state in self._states if state.busy], "the program ended")
        for state in self._states:
            async with state.lock:  # what computes its KV has ended
                pass
        under_way = [state.decoding.task for state in self._states if state.decoding is not None]
        under_way += [state.before for state in self._states if state.before is not None]
        if under_way:
            await asyncio.wait(under_way)
            await asyncio.sleep(0)  # their readers add what came
        for state in self._states[::-1]:
            own: End = ("finished", "the program ended") if state.live.ran else NEVER_RAN
            if state.cancelled is not None:
                own = "cancelled", state.cancelled
            self.end(state, *(end if state is self.main else own))
            state.kv.release()

    def _answer(self) -> str | None:
        return self.main.answer or None

    def cancel(self, reason: str) -> None:
        """Stop the trace soon; what its threads wrote is kept, and the program may still make an answer of it."""
        self.stop([self.main], reason)
        if self._task is not None:
            asyncio.get_running_loop().call_later(GRACE_S, self._task.cancel)

    def fork(
        self, state: ProgramState, headers: Sequence[list[int]], *, shares_prefix: bool, beside: bool
    ) -> list[ProgramState]:
        """Fork a thread into children; those that a limit forbids come back cancelled.

        Args:
            headers: token ids written into each child.
            beside: whether the thread goes on meanwhile.
        """
        live, now = state.live, self.now()
        for fork in state.waiting:
            if fork.joined_at is None and state.waited_for(fork):
                transitions.pass_by(live, fork, now)
        specs = [ChildSpec((Insert(tuple(header)),) if header else ()) for header in headers]
        key = f"program {len(self._states)}" if beside else None
        fork = transitions.fork(live, "message", shares_prefix, specs, now, key)
        refused = self._refused(state)
        self.main.left.forks -= refused is None
        born = [self._born(state, fork, child, beside=beside) for child in fork.children]
        for number, one in enumerate(born):
            if refused is not None or number >= self.limits.children:
                self.end(one, "cancelled", refused or self.limits.name("children"))
        if beside:
            state.probes += born
        else:
            state.kids += born
            state.since = state.since if state.waiting else now
            state.waiting.append(fork)
        return born

    def _refused(self, state: ProgramState) -> str | None:
        """Why the children of a new fork can't run."""
        if state.cancelled is not None or state.lost:
            return state.cancelled or state.live.stop_reason
        if state.live.depth >= self.limits.depth:
            return self.limits.name("depth")
        return self.limits.name("forks") if self.main.left.forks == 0 else None

    def _born(self, state: ProgramState, fork: LiveFork, child: LiveThread, *, beside: bool) -> ProgramState:
        shares = fork.shares_prefix
        seen = len(state.live.view) if shares else 0
        born = ProgramState(
            child,
            Allotment(None, 0),
            parent=state,
            beside_parent=beside,
            shares=shares,
            bound=not shares,
            grafted=state.grafted if shares else 0,
            blocks=ThreadBlocks(shared=min(seen, len(state.kv)) if self.engine.capabilities.graft else seen),
        )
        if beside and shares and state.bound and not state.joins:
            self.kv.bind(born)
        self._states.append(born)
        self._begun(born)
        return born

    def _begun(self, state: ProgramState) -> None:
        state.text = TextStream(self.engine.tokenizer) if self.emit else None
        self._started_event(state.live)

    def end(self, state: ProgramState, status: Status, reason: str) -> None:
        """End a thread; the first end counts. The KV of one that was lost is free."""
        live = state.live
        if state.at_end and live.status is None and status != "failed":
            status, reason = "finished", decode(self.engine.tokenizer, [live.newest])
        transitions.end(live, status, reason)
        if not state.closed:
            state.closed = True
            live.text = self.text(live.sampled)
            self._ended_event(live, state.text)
            if state.lost:
                self.free(state)

    def free(self, state: ProgramState) -> None:
        """Give back what a thread holds on the engine."""
        state.kv.release()
        state.kv.handles = ()
        self.blocks.give_back(state.blocks)

    def stop(self, states: Sequence[ProgramState], reason: str) -> None:
        """Cancel threads and all below them: those that sample end soon, with what they wrote, the others now."""
        requests = []
        every = [below for state in states for below in state.family()]
        for state in (one for one in every if one.live.status is None):
            state.cancelled = state.cancelled or reason
            state.blocks.refuse()
            if state.request is not None:
                requests.append(state.request)
            if state.call is not None:
                state.call.withdraw()
            elif not state.lock.locked():  # else its KV is computed: it ends with the program
                self.end(state, "cancelled", reason)
        self.abort(requests)

    def abort(self, requests: list[str]) -> None:
        """Have requests ended soon."""
        if requests:
            task = asyncio.ensure_future(self.engine.abort(requests))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    def check(self, state: ProgramState, *, busy: bool = False, waiting: bool = False) -> bool:
        """Whether a thread takes more; False once it has ended.

        Args:
            busy, waiting: whether it may sample, or wait for children, meanwhile.

        Raises:
            InputError: the call is wrong.
        """
        label = state.live.label
        if self._over:
            raise InputError(f"thread {label} belongs to a program that has ended")
        if state.joined:
            raise InputError(f"thread {label} was joined; its parent goes on")
        if not waiting and state.waiting:
            raise InputError(f"thread {label} waits for the threads it forked: join them first, with [] for none")
        if not busy and state.busy and not state.streams:
            raise InputError(f"thread {label} samples: await that first, or probe it")
        if not busy and state.busy:
            self.leave(state)
        return state.live.status is None

    def leave(self, state: ProgramState) -> None:
        """Nobody reads on what a thread samples: stop its request, and keep what was read."""
        share, decoding = state.call, state.decoding
        state.call = state.decoding = None
        if share is None:
            return
        if decoding is None or decoding.task.done():
            transitions.has_no_more(state.live, len(state.live.view))
            share.close()
            return
        decoding.left_at = len(state.live.view)
        decoding.task.add_done_callback(lambda _: share.close())
        state.before = decoding.task
        if state.request is None:
            decoding.task.cancel()  # it waits for room
        else:
            self.abort([state.request])

    def write(self, state: ProgramState, ids: list[int]) -> None:
        """Write tokens into a thread."""
        if self.check(state) and ids:
            transitions.write(state.live, [Insert(tuple(ids))], self.now())
            state.at_end = False

    def take_back(self, state: ProgramState, tokens: int) -> None:
        """Take back the newest tokens of a thread, none older than its start or its newest join."""
        if self.check(state) and tokens > 0:
            transitions.take_back(state.live, tokens, self.now())
            kept = len(state.live.sampled)
            del state.logprobs[kept:], state.top_logprobs[kept:]
            state.at_end = False

    async def score(self, state: ProgramState, ids: list[int]) -> list[float]:
        """Log-probs of ids as the next tokens of a thread, [tokens]; minus infinity where it was lost."""
        self.check(state, waiting=True)
        end = None if state.lost or not ids else await self.kv.ready(state)
        if end is not None:
            self.end(state, *end)
        return [float("-inf")] * len(ids) if state.lost else await self.requests.score(state, ids)

    def text(self, ids: list[int]) -> str:
        """Tokens as text, without the model's ends of text."""
        return decode(self.engine.tokenizer, [token for token in ids if token not in self.engine.eos_ids])


async def _awaited(program: Callable[[ProgramRun], Awaitable[Any]], run: ProgramRun) -> Any:
    return await program(run)
