"""Walks one trace: decodes threads on an engine, forks and joins them where the dialect says, within the limits.

One trace is one tree of tasks. Nothing that a model writes can raise here: a fork that cannot be read is recorded and
the thread goes on, a bound that is reached ends the thread with a status that names it, and an engine that fails ends
the thread as failed. A child is cancelled by aborting its request, so that what it wrote is kept.
"""

import asyncio
import hashlib
import itertools
import time
from collections.abc import Callable

from parallel_reason.budget import Budget
from parallel_reason.dialects.base import Dialect
from parallel_reason.engines.base import Decode, Decoded, Engine
from parallel_reason.errors import EngineError
from parallel_reason.events import Ended, Event, Finished, Joined, Spawned, Tokens
from parallel_reason.ledger import tally
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams
from parallel_reason.text import TextStream, decode
from parallel_reason.trace import Fork, Malformed, Span, Status, Thread, Trace

Emit = Callable[[Event], None]
_run_numbers = itertools.count()


class Line:
    """A thread while it runs: its record, and what the next request needs.

    Attributes:
        context: every token it sees, injected ones included.
        known: how many leading tokens of ``context`` this trace already has computed.
        critical_path: sampled tokens on the chain that ends at this thread's newest token.
        cancelled: why it shall stop, once somebody said so.
    """

    def __init__(self, thread: Thread, context: list[int], depth: int, known: int, critical_path: int) -> None:
        """A line that has sampled nothing yet."""
        self.thread = thread
        self.context = context
        self.depth = depth
        self.known = known
        self.critical_path = critical_path
        self.sampled: list[int] = []
        self.cancelled: str | None = None
        self.request: str | None = None
        self.children: list[Line] = []

    def add(self, ids: list[int], logprobs: list[float]) -> None:
        """Sampled tokens; they lengthen the newest span unless something came in between."""
        spans, forks = self.thread.spans, self.thread.forks
        places = [fork.at for fork in forks] + [block.at for block in self.thread.malformed]
        if not spans or spans[-1].origin != "sampled" or len(spans) in places:
            spans.append(Span(ids=[], origin="sampled"))
        spans[-1].ids += ids
        spans[-1].logprobs += logprobs
        self.sampled += ids
        self.context += ids
        self.critical_path += len(ids)

    def end(self, status: Status, why: str) -> None:
        """Record how the thread ended."""
        self.thread.status, self.thread.why = status, why


class Run:
    """One trace being made."""

    def __init__(
        self,
        engine: Engine,
        dialect: Dialect,
        sampling: SamplingParams,
        limits: Limits,
        sample: int = 0,
        emit: Emit | None = None,
    ) -> None:
        """``sample`` tells apart traces of one prompt and one seed; ``emit`` is called with every event."""
        self.engine = engine
        self.dialect = dialect
        self.sampling = sampling
        self.limits = limits
        self.sample = sample
        self.emit = emit
        self.budget = Budget(limits, engine.context)
        self.slots = asyncio.Semaphore(limits.threads)
        self.forks_left = limits.forks
        self.number = next(_run_numbers)
        self.requests = itertools.count()
        self.first_token: float | None = None

    async def trace(self, prompt: str, ids: list[int]) -> Trace:
        """Run to the end; never raises for anything the model or the engine did."""
        started = time.perf_counter()
        root = Line(Thread(label="0", spans=[Span(ids=list(ids), origin="prompt")]), list(ids), 0, 0, 0)
        if self.emit:
            self.emit(Spawned("0", None, prompt))
        alarm = None
        if self.limits.deadline_s is not None:
            late = self.limits.name("deadline_s")
            alarm = asyncio.get_running_loop().call_later(self.limits.deadline_s, self._cancel_soon, root, late)
        try:
            await self._decode(root)
        finally:
            if alarm:
                alarm.cancel()
        done = time.perf_counter()
        first = None if self.first_token is None else self.first_token - started
        trace = Trace(
            dialect=self.dialect.name,
            model=self.engine.model,
            prompt=prompt,
            root=root.thread,
            answer=self._answer(root.thread),
            ledger=tally(root.thread, done - started, first),
        )
        if self.emit:
            self.emit(Finished(trace))
        return trace

    async def _decode(self, line: Line) -> None:
        """Decode a thread to its end, forks and joins included."""
        stream = TextStream(self.engine.tokenizer) if self.emit else None
        while True:
            tokens, bound = self.budget.grant(len(line.context), len(line.sampled), line.critical_path)
            if tokens == 0:
                line.end("length", bound)
                break
            decoded = await self._request(line, tokens, stream)
            if decoded is None:
                break
            self.budget.refund(tokens - len(decoded.ids))
            if decoded.reason == "length":
                continue
            if not self.dialect.forks(decoded.ids):
                line.end("finished", self.engine.tokenizer.convert_ids_to_tokens(decoded.ids[-1]))
                break
            block = self.dialect.read_fork(line.sampled)
            if block.problem is not None:
                line.thread.malformed.append(Malformed(at=len(line.thread.spans), reason=block.problem))
            elif line.depth >= self.limits.depth:
                line.end("length", self.limits.name("depth"))
                break
            elif self.forks_left == 0:
                line.end("length", self.limits.name("forks"))
                break
            else:
                self.forks_left -= 1
                await self._fork(line, [list(child.header) for child in block.children])
        self.budget.decoding -= 1
        line.thread.text = decode(self.engine.tokenizer, [i for i in line.sampled if i not in self.engine.eos_ids])
        if self.emit:
            self.emit(Ended(line.thread.label, line.thread.status, line.thread.why))

    async def _request(self, line: Line, tokens: int, stream: TextStream | None) -> Decoded | None:
        """Decode at most ``tokens`` more; None if the thread was cancelled or failed, which is then recorded."""
        asked = time.perf_counter()
        async with self.slots:
            begun = time.perf_counter()
            line.thread.queued_s += begun - asked
            if line.cancelled is not None:
                self.budget.refund(tokens)
                line.end("cancelled", line.cancelled)
                return None
            line.request = f"{self.number}/{self.sample}/{line.thread.label}/{next(self.requests)}"
            request = Decode(
                id=line.request,
                ids=line.context,
                max_tokens=tokens,
                stop_ids=self.dialect.stop_ids(line.depth),
                sampling=self.sampling,
                seed=self._seed(line),
                live=self.emit is not None,
            )
            try:
                decoded = await self.engine.generate(request, lambda ids: self._saw(line, ids, stream))
            except EngineError as error:
                self.budget.refund(tokens)
                line.end("failed", str(error))
                return None
            finally:
                line.request = None
                line.thread.running_s += time.perf_counter() - begun
        line.thread.prefilled_tokens += len(line.context)
        line.thread.cached_tokens += decoded.cached_tokens
        line.thread.recomputed_tokens += max(0, line.known - decoded.cached_tokens)
        line.known = len(line.context) + max(0, len(decoded.ids) - 1)  # the newest token has no KV yet
        line.add(decoded.ids, decoded.logprobs)
        if decoded.reason == "abort":
            self.budget.refund(tokens - len(decoded.ids))
            line.end("cancelled", line.cancelled or "aborted by the engine")
            return None
        return decoded

    def _saw(self, line: Line, ids: list[int], stream: TextStream | None) -> None:
        """Tokens came."""
        if self.first_token is None:
            self.first_token = time.perf_counter()
        if self.emit and stream:
            self.emit(Tokens(line.thread.label, tuple(ids), stream.add(ids)))

    async def _fork(self, line: Line, headers: list[list[int]]) -> None:
        """Run the children to their ends, and write their results into the parent."""
        thread = line.thread
        born = sum(len(fork.children) for fork in thread.forks)
        fork = Fork(
            at=len(thread.spans),
            join=self.dialect.join_rule,
            shares_prefix=self.dialect.shares_prefix,
            children=[Thread(label=f"{thread.label}.{born + k}", parent=thread.label) for k in range(len(headers))],
        )
        thread.forks.append(fork)
        line.children = []
        for child, header in zip(fork.children, headers, strict=True):
            child.spans.append(Span(ids=header, origin="injected"))
            seen = line.context if fork.shares_prefix else []
            known = line.known if fork.shares_prefix else 0
            line.children.append(Line(child, seen + header, line.depth + 1, known, line.critical_path))
            if self.emit:
                self.emit(Spawned(child.label, thread.label, decode(self.engine.tokenizer, header)))
        started = time.perf_counter()
        await self._run_children(line)
        thread.waiting_s += time.perf_counter() - started
        line.critical_path = max([line.critical_path, *(child.critical_path for child in line.children)])
        join = self.dialect.write_join([self._result(child) for child in line.children])
        thread.spans.append(Span(ids=join, origin="injected"))
        line.context += join
        if self.emit:
            labels = tuple(child.thread.label for child in line.children)
            self.emit(Joined(thread.label, labels, decode(self.engine.tokenizer, join)))
        line.children = []

    async def _run_children(self, line: Line) -> None:
        """All children that the limits allow, at once; the rest come back cancelled."""
        for child in line.children[self.limits.children :]:
            child.end("cancelled", self.limits.name("children"))
        children = line.children[: self.limits.children]
        self.budget.decoding += len(children) - 1  # the parent waits
        try:
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(self._run_child(line, child))
        finally:
            self.budget.decoding += 1

    async def _run_child(self, parent: Line, child: Line) -> None:
        if parent.cancelled is not None:
            child.cancelled = parent.cancelled
        await self._decode(child)
        if self.dialect.joins_on_first and parent.cancelled is None and self._result(child) is not None:
            for sibling in parent.children:
                if sibling is not child and sibling.cancelled is None:
                    await self._cancel(sibling, f"joined on {child.thread.label}")

    def _result(self, child: Line) -> list[int] | None:
        """What a child returns; only one that finished returns anything."""
        return self.dialect.read_result(child.sampled) if child.thread.status == "finished" else None

    async def _cancel(self, line: Line, why: str) -> None:
        """Stop a thread and all below it; what they wrote is kept."""
        line.cancelled = why
        if line.request is not None:
            await self.engine.abort(line.request)
        for child in line.children:
            await self._cancel(child, why)

    def _cancel_soon(self, line: Line, why: str) -> None:
        """Cancel from a timer."""
        self._cancelling = asyncio.ensure_future(self._cancel(line, why))

    def _seed(self, line: Line) -> int | None:
        """A seed of its own for every request, the same whenever the same prompt, seed and sample run again."""
        if self.sampling.seed is None:
            return None
        place = f"{self.sampling.seed}/{self.sample}/{line.thread.label}/{len(line.sampled)}"
        return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=6).digest())

    def _answer(self, root: Thread) -> str | None:
        """What a root that came to its end wrote after its last join."""
        if root.status != "finished" or root.spans[-1].origin != "sampled":
            return None
        ids = [i for i in root.spans[-1].ids if i not in self.engine.eos_ids]
        return decode(self.engine.tokenizer, ids).strip()
