"""One actor as its fleet sees it: made, called, killed. Ray's errors become `Gone`, or what was raised there."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from parallel_reason.errors import EngineError, ParallelReasonError, first_line
from parallel_reason.fleet.settings import Fleet
from parallel_reason.fleet.worker import EngineWorker, NotStartedError

CALLS_BESIDE = 64  # that an actor takes at once, beside those of traces


class Gone(Exception):  # noqa: N818 - not an error of its own: it makes a trace run again
    """The process of an actor ended, or cannot be reached; what it was asked for may have been done, or not.

    Attributes:
        for_good: Ray does not restart it.
        ran: whether it may have started what it was asked for; not if another process was there in its place.
    """

    def __init__(self, reason: str, *, for_good: bool = False, ran: bool = True) -> None:
        """``reason`` is Ray's."""
        super().__init__(reason)
        self.for_good = for_good
        self.ran = ran


class Member:
    """An actor, and what is known of the process that it runs in.

    Attributes:
        number: of its engine.
        generation: counts its processes, as far as they are known; what was asked of an earlier one is lost.
        pid, node: of the newest process that answered.
        lost: whether it was given up.
    """

    def __init__(self, number: int, fleet: Fleet, group: Any, name: str) -> None:
        """Have Ray make the actor; see `settled`."""
        self.number = number
        self.name = f"{name}/engine-{number}"
        self.generation = 0
        self.pid = 0
        self.node = ""
        self.lost = False
        self._fleet = fleet
        self._group = group
        self.create()

    def create(self) -> None:
        """Make the actor, anew if there was one."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._actor = (
            ray.remote(EngineWorker)
            .options(
                name=self.name,
                get_if_exists=False,
                num_cpus=self._fleet.cpus_per_engine,
                num_gpus=self._fleet.gpus_per_engine,
                resources=dict(self._fleet.resources_per_engine),
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, self.number),
                max_restarts=-1,
                max_task_retries=0,
                max_concurrency=self._fleet.traces_per_engine + CALLS_BESIDE,
            )
            .remote()
        )

    async def settled(self) -> None:
        """Wait until a process answers, for as long as Ray looks for a place.

        Raises:
            Gone: for good.
        """
        while True:
            try:
                self.node, self.pid = await self.call("hello")
                return
            except Gone as gone:
                if gone.for_good:
                    raise
                await asyncio.sleep(0.2)

    async def call(self, method: str, *arguments: Any, within_s: float | None = None) -> Any:
        """Call a method of `EngineWorker`.

        Raises:
            Gone: the process ended.
            TimeoutError: it did not answer in time.
            ParallelReasonError: what it raised.
        """
        from ray.exceptions import RayError

        try:
            async with asyncio.timeout(within_s):  # wait_for of Python 3.11 can lose a cancellation
                return await getattr(self._actor, method).remote(*arguments)
        except RayError as error:
            raise _translated(error) from None

    async def stream(self, job: Any) -> AsyncIterator[Any]:
        """What `EngineWorker.stream` yields; raises as `call`."""
        from ray.exceptions import RayError

        try:
            async for item in self._actor.stream.options(num_returns="streaming").remote(job):
                yield await item
        except RayError as error:
            raise _translated(error) from None

    def kill(self, *, restart: bool) -> None:
        """Kill its process, stopped or not."""
        import ray

        ray.kill(self._actor, no_restart=not restart)


def _translated(error: Any) -> Exception:
    """Ray's error as ours."""
    from ray.exceptions import ActorDiedError, RayTaskError

    if not isinstance(error, RayTaskError):
        return Gone(first_line(error), for_good=isinstance(error, ActorDiedError))
    cause = error.cause
    if isinstance(cause, NotStartedError):
        return Gone(str(cause), ran=False)
    return cause if isinstance(cause, ParallelReasonError) else EngineError(f"an engine of the fleet failed: {cause!r}")
