"""A thread's requests on the engine: admission, the request itself, and its outcome in the thread."""

import asyncio
import hashlib
import itertools
from collections.abc import Callable

from parallel_reason.dialects.base import Dialect, Stops
from parallel_reason.engines.admission import TraceBlocks
from parallel_reason.engines.base import Engine, EngineRequest, RequestOutput, TokenDelta
from parallel_reason.errors import EngineError, ParallelReasonError, first_line
from parallel_reason.limits import Limits
from parallel_reason.runtime import transitions
from parallel_reason.runtime.live_thread import LiveThread
from parallel_reason.runtime.running import RunningThread
from parallel_reason.sampling import SamplingParams
from parallel_reason.text import reach
from parallel_reason.trace import Status

End = tuple[Status, str]
Saw = Callable[[RunningThread, TokenDelta], None]


class ThreadRequests:
    """The requests of all threads of one trace.

    Attributes:
        window: tokens that a thread may see, by the limits and the model.
        errors: what was raised and became a thread's status here, as ``Type: message``.
    """

    def __init__(
        self,
        engine: Engine,
        dialect: Dialect,
        sampling: SamplingParams,
        limits: Limits,
        trace: str,
        noise: str | None,
        blocks: TraceBlocks,
        now: Callable[[], float],
        saw: Saw,
    ) -> None:
        """No request has run yet.

        Args:
            trace: id of the trace.
            noise: what every thread's seed is made from, besides its label; None leaves the noise to the engine.
            now: seconds from the start of the trace.
            saw: called with new tokens of a thread as they come.
        """
        self.window = min(engine.context, limits.context or engine.context)
        self.errors: list[str] = []
        self._engine = engine
        self._dialect = dialect
        self._sampling = sampling
        self._trace = trace
        self._noise = noise
        self._blocks = blocks
        self._now = now
        self._saw = saw
        self._slots = asyncio.Semaphore(limits.threads)
        self._numbers = itertools.count()

    async def sample(self, thread: RunningThread, tokens: int, *, stream: bool) -> bool:
        """Sample at most ``tokens`` more; False if the thread was cancelled or met its own stop, which is recorded.

        Args:
            stream: whether tokens are to come one by one.

        Raises:
            ParallelReasonError: of the engine.
        """
        live = thread.live
        sampling, stops = self._sampling.of(live.label), self._dialect.stops(live.depth)
        expected = self._engine.admission.expected_tokens(live.depth, tokens)
        asked = self._now()
        async with self._slots, self._blocks.admitted(thread.blocks, len(live.view), expected) as admitted:
            started = self._now()
            live.queued_s += started - asked
            if thread.cancelled is not None:
                transitions.end(live, "cancelled", thread.cancelled)
                return False
            try:
                output = await self._generate(thread, tokens, sampling, stops, stream)
            finally:
                live.running_s += self._now() - started
                admitted.context = len(live.view)
        self._engine.admission.observe(live.depth, len(output.ids))
        if output.finish_reason == "abort":
            transitions.end(live, "cancelled", thread.cancelled or "aborted by the engine")
            return False
        thread.stopped = output.finish_reason == "stop"
        if thread.stopped and (sampling.stop or sampling.stop_token_ids):
            self._apply_stop(thread, sampling, stops)
        return live.status is None

    def _apply_stop(self, thread: RunningThread, sampling: SamplingParams, stops: Stops) -> None:
        """End a thread that met a stop of its sampling parameters; one that came before ``min_tokens`` is passed over.

        Args:
            stops: of the dialect.
        """
        live, engine = thread.live, self._engine
        own = Stops(frozenset(sampling.stop_token_ids) - engine.eos_ids, sampling.stop)
        ids, _ = live.context
        newest = ids[len(ids) - live.tail(1 + reach(own.texts + stops.texts)) :]
        stop = transitions.completed_stop(newest, own, engine.tokenizer)
        if stop is not None and live.drawn > sampling.min_tokens:
            live.stopped_by_caller = True
            transitions.end(live, "finished", stop)
        elif stop is not None and live.newest not in engine.eos_ids:
            thread.stopped = transitions.completed_stop(newest, stops, engine.tokenizer) is not None

    async def cover(self, thread: RunningThread) -> End | None:
        """Compute the KV of all that a thread sees, on an engine that hands it out: other threads begin with it.

        Returns:
            How the thread ends, if that failed.
        """
        live = thread.live
        thread.trim_kv()
        if not self._engine.capabilities.graft or len(thread.kv) == len(live.view):
            return None
        if len(live.view) > self.window:
            return "length", f"limits.context={self.window}"
        if thread.kv.missing:
            return "failed", f"KV below thread {live.label} was never computed: {live.stop_reason}"
        async with self._blocks.admitted(thread.blocks, len(live.view), 0) as admitted:
            if not admitted.granted:
                return "cancelled", thread.cancelled or "no room"
            try:
                await self._generate(thread, 0, self._sampling.of(live.label), Stops(), stream=False)
            except ParallelReasonError as error:  # the join fails, and names the cause
                self.errors.append(f"{type(error).__name__}: {first_line(error)}")
                return "failed", first_line(error)
        return None

    async def _generate(
        self, thread: RunningThread, tokens: int, sampling: SamplingParams, stops: Stops, stream: bool
    ) -> RequestOutput:
        """One request on the engine, and its outcome in the thread."""
        live, started = thread.live, self._now()
        thread.trim_kv()
        ids, positions = live.context
        texts = stops.texts + sampling.stop
        thread.request = f"{self._trace}/{live.label}/{next(self._numbers)}"
        request = EngineRequest(
            id=thread.request,
            ids=ids,
            max_tokens=tokens,
            sampling=sampling,
            stop_ids=stops.ids | frozenset(sampling.stop_token_ids),
            stop_texts=texts,
            seed=self._seed(live),
            first_draw=live.drawn,
            sampled=live.sampled if sampling.counts_output else [],
            tail=live.tail(reach(texts + sampling.bad_words)),
            stream=stream,
            positions=positions,
            held=thread.kv.handles,
            keep_kv=self._engine.capabilities.graft,
            trace=self._trace,
            label=live.label,
        )
        try:
            output = await self._engine.generate(request, lambda delta: self._saw(thread, delta))
        finally:
            thread.request = None
        if len(output.logprobs) != len(output.ids):
            raise EngineError(
                f"engine {self._engine.name!r} returned {len(output.logprobs)} log-probs for {len(output.ids)} tokens"
            )
        computed = len(output.kv) if output.kv is not None else len(ids) + max(0, len(output.ids) - 1)
        transitions.prefilled(live, output.prefilled_tokens, output.cached_tokens, computed)
        transitions.sample(
            live,
            transitions.Sample(
                output.ids, output.logprobs, output.top_logprobs, output.policy_versions, started, self._now()
            ),
        )
        if thread.left.tokens is not None:
            thread.left.tokens -= len(output.ids)
        if output.kv is not None:
            thread.kv.hold(output.kv)
        return output

    def _seed(self, live: LiveThread) -> int | None:
        """A seed for every thread."""
        if self._noise is None:
            return None
        return int.from_bytes(hashlib.blake2b(f"{self._noise}/{live.label}".encode(), digest_size=6).digest())
