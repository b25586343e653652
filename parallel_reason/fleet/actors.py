"""The actors of a fleet: placed, started, watched, restarted, and kept on the same weights.

An engine goes round: started with the newest weights, serving, dead, started again, until it is given up. Everything
here runs on one event loop.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

from parallel_reason.errors import EngineError, ParallelReasonError, first_line
from parallel_reason.fleet.cluster import cores_of, place
from parallel_reason.fleet.health import Health
from parallel_reason.fleet.member import Gone, Member
from parallel_reason.fleet.messages import EngineFacts, SessionOptions, Weights
from parallel_reason.fleet.metrics import FleetMetrics
from parallel_reason.fleet.settings import Fleet

log = logging.getLogger(__name__)


class Traces(Protocol):
    """What actors report to: who deals traces to its engines."""

    def serves(self, engine: int) -> None:
        """An engine takes traces from now on."""
        ...

    def died(self, engine: int, reason: str, *, blame: bool) -> None:
        """An engine and all it had is gone; ``blame`` where a trace may be the reason."""
        ...

    def start_failed(self, engine: int) -> bool:
        """An engine could not be started; whether it is to be given up."""
        ...

    def has_none(self, engine: int) -> bool:
        """Whether an engine has no trace."""
        ...


class EngineActors:
    """Keeps engines serving. Make it with `placed`.

    Attributes:
        members: the actors, by the number of their engine.
        weights: those that every engine has before it serves; None for the model's own.
        restarts: how many engines died so far.
    """

    def __init__(self, fleet: Fleet, name: str, options: SessionOptions, group: Any, traces: Traces) -> None:
        """Have Ray make the actors, in a placement group."""
        self.fleet = fleet
        self.name = name
        self.members = [Member(number, fleet, group, name) for number in range(fleet.engines)]
        self.metrics = FleetMetrics(name)
        self.weights: Weights | None = None
        self.restarts = 0
        self._options = options
        self._group = group
        self._traces = traces
        self._health = [Health(member, self.metrics) for member in self.members]
        self._serving: set[int] = set()
        self._changed = asyncio.Event()  # who serves; a new one each time
        self._changing = asyncio.Lock()  # the weights
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @classmethod
    async def placed(
        cls, fleet: Fleet, name: str, options: SessionOptions, traces: Traces, *, grows: bool
    ) -> "EngineActors":
        """Find room for the actors; ``grows`` as in `place`.

        Raises:
            InputError, EngineError: there is none.
        """
        if fleet.pin_cores:
            cores_of(fleet, 0)
        return cls(fleet, name, options, await place(fleet, name, grows=grows), traces)

    async def start(self) -> EngineFacts:
        """Start all engines; what the first of them says of itself. If one does not start, all are ended.

        Raises:
            InputError, ModelError, EngineError: as `Session.start`.
        """
        try:
            for member in self.members:
                async with asyncio.timeout(self.fleet.start_s):
                    await member.settled()
            facts = await asyncio.gather(*map(self._start, self.members))
        except (Gone, TimeoutError) as error:
            await self.close()
            raise EngineError(f"an engine of fleet {self.name!r} did not start: {first_line(error)}") from None
        except BaseException:
            await self.close()
            raise
        for member in self.members:
            self._serve(member)
            self.spawn(self._watch(member))
        return facts[0]

    @property
    def serving(self) -> list[Member]:
        """The actors whose engines serve now."""
        return [member for member in self.members if member.number in self._serving]

    async def some_serve(self) -> list[Member]:
        """`serving`, once that is somebody.

        Raises:
            EngineError: every engine was given up, or the fleet was closed.
        """
        while not self._serving:
            if self._closed or all(member.lost for member in self.members):
                raise EngineError(self.why_hopeless())
            await self._changed.wait()
        return self.serving

    def why_hopeless(self) -> str:
        """Why there is nobody, in words."""
        state = "was closed" if self._closed else "has no engine left: each failed to start, as the log says"
        return f"fleet {self.name!r} {state}"

    async def update_weights(self, folder: str) -> int:
        """Give all engines the weights of a folder; the version that they have now.

        Raises:
            InputError, ModelError, EngineError: an engine cannot load them; all go on with those of before.
        """
        await self.some_serve()
        async with self._changing:
            new = Weights(folder, (self.weights.version if self.weights else 0) + 1)
            asked = [(member, member.generation) for member in self.serving]
            answers = await asyncio.gather(
                *(member.call("update_weights", new) for member, _ in asked), return_exceptions=True
            )
            errors = [each for each in answers if isinstance(each, BaseException) and not isinstance(each, Gone)]
            for (member, generation), answer in zip(asked, answers, strict=True):
                if isinstance(answer, Gone):
                    self.died(member, generation, str(answer), blame=False)
                elif errors:  # some engines have loaded them, and what a failed load left of one is not known
                    member.kill(restart=True)
                    self.died(member, generation, "the fleet goes back to the weights of before", blame=False)
            if errors:
                raise errors[0]
            self.weights = new
            self.metrics.version(new.version)
            return new.version

    def died(self, member: Member, generation: int, reason: str, *, blame: bool = True) -> None:
        """A process of an actor is gone; everyone who finds out says so, and the first one counts."""
        if self._closed or generation != member.generation:
            return
        member.generation += 1
        self.restarts += 1
        self._serving.discard(member.number)
        self._notify()
        self.metrics.restarted(member.number)
        log.warning("%s (process %d) died: %s", member.name, member.pid, reason)
        self.spawn(self._revive(member))
        self._traces.died(member.number, reason, blame=blame)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something until `close`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End all engines and give their place back; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._notify()
        from ray.util.placement_group import remove_placement_group

        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        closing = [member.call("close", within_s=self.fleet.hung_after_s) for member in self.serving]
        await asyncio.gather(*others, *closing, return_exceptions=True)
        for member in self.members:
            member.kill(restart=False)
        remove_placement_group(self._group)

    async def _revive(self, member: Member) -> None:
        """Start an engine until it serves, or is given up."""
        while True:
            try:
                await member.settled()
                has = self.weights
                await self._start(member)
                async with self._changing:  # no change of weights is under way
                    if self.weights is not None and self.weights != has:
                        await member.call("update_weights", self.weights)
                    self._serve(member)
                return
            except (Gone, TimeoutError, ParallelReasonError) as error:
                log.error("%s did not start: %s", member.name, first_line(error))
                member.lost = self._traces.start_failed(member.number)
                self._notify()
                if member.lost:
                    log.error("%s is given up", member.name)
                    return
                await self._fresh_process(member, error)

    async def _fresh_process(self, member: Member, failed: Exception) -> None:
        """See that the next start of an engine is in a process of its own."""
        if not isinstance(failed, Gone):
            member.kill(restart=True)
        elif failed.for_good:
            await asyncio.sleep(self.fleet.check_s)
            member.create()

    async def _start(self, member: Member) -> EngineFacts:
        """Load the model and the weights of now."""
        cores: tuple[int, ...] = ()
        if self.fleet.pin_cores:
            beside = [each.number for each in self.members if each.node == member.node]
            cores = cores_of(self.fleet, beside.index(member.number))
        start = member.call("start", self._options, self.weights, cores, within_s=self.fleet.start_s)
        facts: EngineFacts = await start
        return facts

    def _serve(self, member: Member) -> None:
        self._serving.add(member.number)
        self._notify()
        self._traces.serves(member.number)

    def _notify(self) -> None:
        """Wake who waits for engines."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self, member: Member) -> None:
        """Ask an engine now and then whether it lives, and when it is idle what it holds."""
        health = self._health[member.number]
        while True:
            await asyncio.sleep(self.fleet.check_s)
            if member.number not in self._serving:
                continue
            generation = member.generation
            try:
                await member.call("check", within_s=self.fleet.hung_after_s)
                if self._traces.has_none(member.number):
                    await health.check_idle(self.fleet.hung_after_s, lambda: self._traces.has_none(member.number))
                else:
                    health.worked = True
            except TimeoutError:
                if generation == member.generation:
                    member.kill(restart=True)
                    self.died(member, generation, f"no answer within {self.fleet.hung_after_s:g} s: it hangs")
            except (Gone, ParallelReasonError) as error:
                self.died(member, generation, first_line(error))
