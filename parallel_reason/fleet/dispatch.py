"""Which engine gets which trace, what is run again, and when to give up: a pure, deterministic state machine.

No clock, no randomness, no Ray: `EnginePool` tells it what happened and does what it says. Invariants:
- A submitted trace ends exactly once: finished, cancelled, blamed or without an engine. What an attempt that no longer
  counts reports is ignored.
- Waiting traces are dealt oldest first, each to the engine with the fewest; never more than the bound on one engine.
- Traces of an engine that died keep their age, so they are dealt before younger ones.

Who killed an engine cannot be known when several traces were on it. A trace that was on two engines that died is blamed
if it is the only one of which that is true; if there are several, each of them runs alone, and one that dies alone is
blamed. So no trace is on more than three engines that die, and others are not blamed for it.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush

DEATHS = 2  # engines that die under a trace until it is suspected
STARTS = 3  # starts of an engine that fail one after the other until it is given up


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a trace on an engine; ``number`` counts the runs of this trace from 1."""

    trace: str
    engine: int
    number: int


@dataclass(slots=True)
class _Work:
    """A trace that has not ended. ``attempt`` is None while it waits."""

    trace: str
    age: int
    deaths: int = 0
    attempts: int = 0
    attempt: Attempt | None = None
    cancelled: bool = False


@dataclass(slots=True)
class _EngineState:
    """An engine; ``failed_starts`` are those since it last served."""

    serving: bool = False
    lost: bool = False
    failed_starts: int = 0
    running: dict[str, _Work] = field(default_factory=dict)


class Dispatcher:
    """Deals traces to engines, which are numbered from 0. No engine serves until `serves`."""

    def __init__(self, engines: int, traces_per_engine: int) -> None:
        """``traces_per_engine`` bounds the traces in flight on one engine."""
        self._engines = [_EngineState() for _ in range(engines)]
        self._bound = traces_per_engine
        self._work: dict[str, _Work] = {}
        self._waiting: list[tuple[int, str]] = []  # a heap; those that ended meanwhile are skipped
        self._suspects: list[tuple[int, str]] = []  # a heap: each of these runs alone
        self._reserved: int | None = None  # the engine that is kept for a suspect
        self._age = 0

    @property
    def waiting(self) -> int:
        """Traces that no engine has."""
        return len(self._work) - self.in_flight

    @property
    def in_flight(self) -> int:
        """Traces on engines."""
        return sum(len(engine.running) for engine in self._engines)

    @property
    def hopeless(self) -> bool:
        """Whether every engine was given up."""
        return all(engine.lost for engine in self._engines)

    def is_lost(self, engine: int) -> bool:
        """Whether an engine was given up."""
        return self._engines[engine].lost

    def on(self, engine: int) -> list[str]:
        """The traces that an engine has, in the order in which it got them."""
        return list(self._engines[engine].running)

    def submit(self, trace: str) -> None:
        """A new trace, with an id of its own."""
        self._work[trace] = _Work(trace, self._age)
        self._age += 1
        heappush(self._waiting, (self._work[trace].age, trace))

    def serves(self, engine: int) -> None:
        """An engine is ready for traces."""
        self._engines[engine].serving = True
        self._engines[engine].failed_starts = 0

    def deal(self) -> list[Attempt]:
        """Attempts that begin now, in the order in which they are to be sent."""
        dealt = self._deal_suspect()
        while self._next(self._waiting) and (engine := self._least_loaded(self._bound)) is not None:
            dealt.append(self._give(heappop(self._waiting)[1], engine))
        return dealt

    def finished(self, attempt: Attempt) -> bool:
        """An attempt has its trace; whether it counts, and so ends the trace."""
        work = self._work.get(attempt.trace)
        if work is None or work.attempt != attempt:
            return False
        self._end(work)
        return True

    def cancel(self, trace: str) -> Attempt | None:
        """A trace is not to go on.

        Returns:
            The attempt that is to be stopped, which ends as any other, and is not run again; None if the trace was
            waiting and has ended now, or had ended before.
        """
        work = self._work.get(trace)
        if work is None:
            return None
        if work.attempt is None:
            self._end(work)
            return None
        work.cancelled = True
        return work.attempt

    def died(self, engine: int, *, blame: bool = True) -> dict[str, str]:
        """An engine is gone with what it had; its traces wait again.

        Args:
            blame: whether one of them may be the reason; not where it was stopped on purpose.

        Returns:
            Traces that ended by this, each with ``cancelled`` or ``blamed``.
        """
        state = self._engines[engine]
        state.serving = False
        if self._reserved == engine:
            self._reserved = None
        lost, state.running = list(state.running.values()), {}
        for work in lost:
            work.attempt = None
            work.deaths += blame
        suspected = [work for work in lost if work.deaths >= DEATHS]
        ended = {}
        for work in lost:
            if work.cancelled or (blame and [work] == suspected):
                ended[work.trace] = "cancelled" if work.cancelled else "blamed"
                self._end(work)
            else:
                heappush(self._suspects if work.deaths >= DEATHS else self._waiting, (work.age, work.trace))
        return ended

    def start_failed(self, engine: int) -> list[str]:
        """A start of an engine failed; after `STARTS` of them in a row it is `lost`. Traces that ended by this."""
        state = self._engines[engine]
        state.failed_starts += 1
        return self.lose(engine) if state.failed_starts >= STARTS else []

    def lose(self, engine: int) -> list[str]:
        """An engine is given up; of the last one, all traces end, which are returned in the order of their age."""
        self._engines[engine].lost = True
        if not self.hopeless:
            return []
        left = sorted(self._work.values(), key=lambda work: work.age)
        for work in left:
            self._end(work)
        return [work.trace for work in left]

    def _deal_suspect(self) -> list[Attempt]:
        """Keep an engine for the oldest suspect, and give it to it once nothing else is on it."""
        if self._reserved is not None and not self._next(self._suspects) and not self._engines[self._reserved].running:
            self._reserved = None
        if self._reserved is None and self._next(self._suspects):
            self._reserved = self._least_loaded(self._bound + 1)
        if self._reserved is None or not self._next(self._suspects) or self._engines[self._reserved].running:
            return []
        return [self._give(heappop(self._suspects)[1], self._reserved)]

    def _next(self, heap: list[tuple[int, str]]) -> bool:
        """Whether a trace of a heap waits; those that have ended are dropped from its top."""
        while heap and heap[0][1] not in self._work:
            heappop(heap)
        return bool(heap)

    def _least_loaded(self, bound: int) -> int | None:
        """The first engine of those with the fewest traces, if these are fewer than ``bound``."""
        best = None
        for number, engine in enumerate(self._engines):
            load = len(engine.running)
            if load < bound and engine.serving and number != self._reserved:
                best, bound = number, load
                if not load:
                    break
        return best

    def _give(self, trace: str, engine: int) -> Attempt:
        work = self._work[trace]
        work.attempts += 1
        work.attempt = Attempt(trace, engine, work.attempts)
        self._engines[engine].running[trace] = work
        return work.attempt

    def _end(self, work: _Work) -> None:
        del self._work[work.trace]
        if work.attempt is not None:
            del self._engines[work.attempt.engine].running[work.trace]
