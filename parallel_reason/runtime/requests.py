"""A thread's requests on the engine: admission, the request itself, and its outcome in the thread."""

import asyncio
import hashlib
import itertools
from collections.abc import Callable

from parallel_reason.dialects.base import Dialect, Stops
from parallel_reason.engines.admission import TraceBlocks
from parallel_reason.engines.base import Engine, EngineRequest, KVHandle, RequestOutput, TokenDelta
from parallel_reason.errors import EngineError, ParallelReasonError, first_line
from parallel_reason.limits import Limits
from parallel_reason.runtime import transitions
from parallel_reason.runtime.live_thread import LiveThread
from parallel_reason.runtime.running import RunningThread
from parallel_reason.sampling import SamplingParams
from parallel_reason.text import reach
from parallel_reason.trace import Status

MOST_FORCED = 8  # tokens that are scored one by one

End = tuple[Status, str]
Saw = Callable[[RunningThread, TokenDelta], None]


class Decoding:
    """A request whose tokens are added to its thread as somebody reads them.

    Attributes:
        reports: what came of it; None after the last.
        task: it.
        started: when it was sent to the engine, seconds from the start of the trace.
        left_at: how many tokens its thread saw when its reader left; None while it is read.
    """

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.reports: asyncio.Queue[TokenDelta | None] = asyncio.Queue()
        self.task: asyncio.Task[RequestOutput]
        self.started = 0.0
        self.left_at: int | None = None


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
        output = await self._request(thread, tokens, sampling, stops, stream=stream)
        if output.finish_reason == "abort":
            transitions.end(live, "cancelled", thread.cancelled or "aborted by the engine")
            return False
        thread.stopped = output.finish_reason == "stop"
        if thread.stopped:
            self.apply_stop(thread, sampling, stops)
        return live.status is None

    def decode(
        self, thread: RunningThread, tokens: int, sampling: SamplingParams, stops: Stops, *, stream: bool
    ) -> "Decoding":
        """Begin to sample at most ``tokens`` more, which the caller adds to the thread as it reads them."""
        decoding = Decoding()
        work = self._request(thread, tokens, sampling, stops, stream=stream, decoding=decoding)
        decoding.task = asyncio.create_task(work)
        decoding.task.add_done_callback(lambda _: decoding.reports.put_nowait(None))
        return decoding

    async def _request(
        self,
        thread: RunningThread,
        tokens: int,
        sampling: SamplingParams,
        stops: Stops,
        *,
        stream: bool,
        decoding: "Decoding | None" = None,
    ) -> RequestOutput:
        """One request, once there is room for it; if its thread is cancelled before, what an aborted one returns."""
        live = thread.live
        expected = self._engine.admission.expected_tokens(live.depth, tokens)
        asked = self._now()
        async with self._slots, self._blocks.admitted(thread.blocks, len(live.view), expected) as admitted:
            started = self._now()
            live.queued_s += started - asked
            if thread.cancelled is not None:
                return RequestOutput()
            try:
                output = await self._generate(thread, tokens, sampling, stops, stream, decoding)
                admitted.context += len(output.ids)
            finally:
                live.running_s += self._now() - started
        self._engine.admission.observe(live.depth, len(output.ids))
        return output

    def apply_stop(self, thread: RunningThread, sampling: SamplingParams, stops: Stops) -> None:
        """End a thread that met a stop of its sampling parameters; one that came before ``min_tokens`` is passed over.

        Args:
            stops: of the dialect, or of a call.
        """
        if not sampling.stop and not sampling.stop_token_ids:
            return
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
        return await self.compute(thread)

    async def compute(self, thread: RunningThread) -> End | None:
        """Compute the KV of all that a thread sees."""
        live = thread.live
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
        self,
        thread: RunningThread,
        tokens: int,
        sampling: SamplingParams,
        stops: Stops,
        stream: bool,
        decoding: "Decoding | None" = None,
    ) -> RequestOutput:
        """One request on the engine, and its outcome in the thread; with ``decoding`` all but its tokens."""
        live, started = thread.live, self._now()
        thread.trim_kv()
        ids, positions = live.context
        if decoding is not None:
            decoding.started = started

        def came(delta: TokenDelta) -> None:
            self._saw(thread, delta)
            if decoding is not None:
                decoding.reports.put_nowait(delta)

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
            output = await self._engine.generate(request, came)
        finally:
            thread.request = None
        if len(output.logprobs) != len(output.ids):
            raise EngineError(
                f"engine {self._engine.name!r} returned {len(output.logprobs)} log-probs for {len(output.ids)} tokens"
            )
        computed = len(output.kv) if output.kv is not None else len(ids) + max(0, len(output.ids) - 1)
        transitions.prefilled(live, output.prefilled_tokens, output.cached_tokens, computed)
        if decoding is None:
            transitions.sample(
                live,
                transitions.Sample(
                    output.ids, output.logprobs, output.top_logprobs, output.policy_versions, started, self._now()
                ),
            )
        elif decoding.left_at is not None:
            transitions.has_no_more(live, decoding.left_at)
        if thread.left.tokens is not None:
            thread.left.tokens -= len(output.ids)
        if output.kv is not None:
            thread.kv.hold(output.kv)
        return output

    async def score(self, thread: RunningThread, ids: list[int]) -> list[float]:
        """Log-probs of ids as the next tokens of a thread, [tokens].

        Few tokens are forced one by one, over the KV that is there; so are tokens after a graft, which only that KV
        describes. Many, and all on an engine that cannot force, are one prefill of the whole text.
        """
        live = thread.live
        context, positions = live.context
        plain = positions == list(range(len(positions)))
        if plain and (len(ids) > MOST_FORCED or "allowed_token_ids" in self._engine.capabilities.refuses):
            scores = await self._engine.score([*context, *ids])
            transitions.prefilled(live, len(context) + len(ids), 0, live.computed)
            return scores[len(scores) - len(ids) :]
        if end := await self.cover(thread):
            raise EngineError(f"thread {live.label} cannot be scored: {end[1]}")
        held, own, scores = thread.kv.handles, list[KVHandle](), list[float]()
        try:
            for place, token in enumerate(ids):
                output = await self._engine.generate(
                    EngineRequest(
                        id=f"{self._trace}/{live.label}/{next(self._numbers)}",
                        ids=[*context, *ids[:place]],
                        max_tokens=1,
                        sampling=SamplingParams(allowed_token_ids=(token,), ignore_eos=True),
                        positions=[*positions, *range(positions[-1] + 1, positions[-1] + 1 + place)],
                        held=held,
                        keep_kv=self._engine.capabilities.graft,
                        trace=self._trace,
                        label=live.label,
                    )
                )
                scores += output.logprobs
                transitions.prefilled(live, output.prefilled_tokens, output.cached_tokens, live.computed)
                if output.kv is not None:
                    own.append(output.kv)
                    held = (output.kv,)
        finally:
            for handle in own:
                handle.release()
        return scores

    def _seed(self, live: LiveThread) -> int | None:
        """A seed for every thread."""
        if self._noise is None:
            return None
        return int.from_bytes(hashlib.blake2b(f"{self._noise}/{live.label}".encode(), digest_size=6).digest())
