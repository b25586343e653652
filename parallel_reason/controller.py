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
from typing import Literal

from parallel_reason.budget import Budget
from parallel_reason.dialects.base import Amend, Child, Dialect, Glue, Join, Split
from parallel_reason.engines.base import Decode, Decoded, Engine
from parallel_reason.errors import EngineError
from parallel_reason.events import Ended, Event, Finished, Joined, Spawned, Tokens
from parallel_reason.ledger import tally
from parallel_reason.limits import Limits
from parallel_reason.line import Line
from parallel_reason.memory import Share
from parallel_reason.sampling import SamplingParams
from parallel_reason.text import TextStream, decode
from parallel_reason.trace import Fork, JoinRule, Status, Thread, Trace

Emit = Callable[[Event], None]
_run_numbers = itertools.count()


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
        self.share = Share(engine.memory, self.number)
        self.requests = itertools.count()
        self.first_token: float | None = None

    async def trace(self, prompt: str, ids: list[int]) -> Trace:
        """Run to the end; never raises for anything the model or the engine did."""
        started = time.perf_counter()
        root = Line(Thread(label="0"), depth=0)
        root.write([Glue(tuple(ids))], "prompt")
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
            root.release()
            self.share.close()
        done = time.perf_counter()
        first = None if self.first_token is None else self.first_token - started
        trace = Trace(
            dialect=self.dialect.name,
            model=self.engine.model,
            prompt=prompt,
            root=root.thread,
            answer=self._answer(root.thread),
            ledger=tally(root.thread, done - started, first, self.share.most),
        )
        if self.emit:
            self.emit(Finished(trace))
        return trace

    async def _decode(self, line: Line) -> None:
        """Decode a thread to its end, forks and joins included."""
        stream = TextStream(self.engine.tokenizer) if self.emit else None
        running = await self._act(line)
        while running:
            tokens, bound = self.budget.grant(len(line.context), line.drawn, line.critical_path)
            if tokens == 0:
                line.end("length", bound)
                break
            decoded = await self._request(line, tokens, stream)
            if decoded is None:
                break
            self.budget.refund(tokens - len(decoded.ids))
            if decoded.reason == "stop":
                line.ended = self._ended(line)
                running = await self._act(line)
        self.budget.decoding -= 1
        if not self.engine.capabilities.graft:
            self.share.give_back(line)
        line.thread.text = decode(self.engine.tokenizer, [i for i in line.sampled if i not in self.engine.eos_ids])
        if self.emit:
            self.emit(Ended(line.thread.label, line.thread.status, line.thread.why))

    def _ended(self, line: Line) -> Literal["stop", "eos"]:
        """What a request stopped at."""
        stops, newest = self.dialect.stops(line.depth), line.context[-1]
        if newest in stops.ids:
            return "stop"
        return "eos" if newest in self.engine.eos_ids or not stops.texts else "stop"

    async def _act(self, line: Line) -> bool:
        """Do what the dialect says of a thread that stopped; whether it samples on."""
        act = self.dialect.step(line.view)
        if not isinstance(act, Split):
            return line.follow(act, self.engine.tokenizer)
        if line.depth >= self.limits.depth or self.forks_left == 0:
            line.end("length", self.limits.name("depth" if line.depth >= self.limits.depth else "forks"))
            return False
        self.forks_left -= 1
        line.amend(Amend(act.take_back, act.glue))
        return await self._fork(line, act.children)

    async def _request(self, line: Line, tokens: int, stream: TextStream | None) -> Decoded | None:
        """Decode at most ``tokens`` more; None if the thread was cancelled or failed, which is then recorded."""
        asked = time.perf_counter()
        async with self.slots, self.share.room(line, tokens):
            begun = time.perf_counter()
            line.thread.queued_s += begun - asked
            if line.cancelled is not None:
                self.budget.refund(tokens)
                line.end("cancelled", line.cancelled)
                return None
            stops = self.dialect.stops(line.depth)
            line.request = self._name(line)
            request = Decode(
                id=line.request,
                ids=line.context,
                max_tokens=tokens,
                stop_ids=stops.ids,
                stop_texts=stops.texts,
                sampling=self.sampling,
                seed=self._seed(line),
                live=self.emit is not None,
                positions=line.positions,
                held=line.held,
                keep=self.engine.capabilities.graft,
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
            line.thread.recomputed_tokens += max(0, line.known - decoded.cached_tokens)
            line.take(decoded)
            self.engine.memory.learn(line.depth, len(decoded.ids))
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

    async def _fork(self, line: Line, asked: tuple[Child, ...]) -> bool:
        """Run the children to their ends, and join; whether the parent samples on."""
        thread, rule = line.thread, self.dialect.join_rule
        born = sum(len(fork.children) for fork in thread.forks)
        fork = Fork(
            at=len(thread.spans),
            join=rule,
            shares_prefix=self.dialect.shares_prefix,
            children=[Thread(label=f"{thread.label}.{born + k}", parent=thread.label) for k in range(len(asked))],
        )
        thread.forks.append(fork)
        started = time.perf_counter()
        try:
            failure = await self._cover(line)
            if failure is not None:
                line.end(*failure)
                return False
            for number, (child, ask) in enumerate(zip(fork.children, asked, strict=True)):
                sees = fork.shares_prefix and number < self.limits.children  # those beyond will never run
                line.children.append(Line(child, line.depth + 1, line if sees else None))
                line.children[-1].open(ask.header, line.critical_path)
                if self.emit:
                    self.emit(Spawned(child.label, thread.label, self._text(ask.header)))
            await self._run_children(line)
            join = self.dialect.join(line.view, [child.returned for child in line.children])
            failure = await self._close(line, join, rule)
            if failure is not None:
                line.end(*failure)
                return False
        finally:
            thread.waiting_s += time.perf_counter() - started
            labels = tuple(child.thread.label for child in line.children)
            if rule == "message":
                for below in line.children:
                    self.share.give_back(below)
            line.joined(rule)
        line.write(join.glue)
        if self.emit:
            self.emit(Joined(thread.label, labels, self._text(join.glue)))
        if join.ends is not None:
            line.end("finished", join.ends)
        return join.ends is None

    async def _close(self, line: Line, join: Join, rule: JoinRule) -> tuple[Status, str] | None:
        """Amend the children as a join asks, and have the KV that a graft will see; how that failed, if it did."""
        for child, close in zip(line.children, join.closes, strict=False):
            child.amend(close)
        if rule != "graft":
            return None
        failures = await asyncio.gather(*(self._cover(child) for child in line.children if child.thread.ran))
        return next((failure for failure in failures if failure is not None), None)

    async def _cover(self, line: Line) -> tuple[Status, str] | None:
        """Compute the KV of all that a line sees, on an engine that hands it out: other lines begin with it.

        Returns:
            How that failed, if it did.
        """
        if not self.engine.capabilities.graft or line.covered == len(line.context):
            return None
        if len(line.context) > self.budget.context:
            return "length", f"limits.context={self.budget.context}"
        if line.torn:
            return "failed", f"KV below thread {line.thread.label} was never computed: {line.thread.why}"
        async with self.share.room(line, 0) as there_is:
            if not there_is:
                return "cancelled", line.cancelled or "no room"
            request = Decode(
                id=self._name(line),
                ids=line.context,
                max_tokens=0,
                stop_ids=frozenset(),
                sampling=self.sampling,
                positions=line.positions,
                held=line.held,
                keep=True,
            )
            try:
                line.take(await self.engine.generate(request))
            except EngineError as error:
                return "failed", str(error)
        return None

    def _name(self, line: Line) -> str:
        """Of the next request of a thread."""
        return f"{self.number}/{self.sample}/{line.thread.label}/{next(self.requests)}"

    def _text(self, glue: tuple[Glue, ...]) -> str:
        return decode(self.engine.tokenizer, [token for piece in glue for token in piece.ids])

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
        if self.dialect.joins_on_first and parent.cancelled is None and self.dialect.returns(child.returned):
            for sibling in parent.children:
                if sibling is not child and sibling.cancelled is None:
                    await self._cancel(sibling, f"joined on {child.thread.label}")

    async def _cancel(self, line: Line, why: str) -> None:
        """Stop a thread and all below it; what they wrote is kept."""
        line.cancelled = why
        self.share.refuse(line)
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
        place = f"{self.sampling.seed}/{self.sample}/{line.thread.label}/{line.drawn}"
        return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=6).digest())

    def _answer(self, root: Thread) -> str | None:
        """What a root that came to its end wrote after its last join."""
        if root.status != "finished" or root.spans[-1].origin != "sampled":
            return None
        ids = [i for i in root.spans[-1].ids if i not in self.engine.eos_ids]
        return decode(self.engine.tokenizer, ids).strip()
