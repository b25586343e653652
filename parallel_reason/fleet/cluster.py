"""The Ray cluster under a fleet: the connection to it, and room for the engines on its nodes."""

import asyncio
import importlib.util
import logging
from typing import Any

from parallel_reason.errors import EngineError, InputError, first_line
from parallel_reason.fleet.settings import Fleet

NAMESPACE = "parallel_reason"


def connect(fleet: Fleet) -> bool:
    """Connect to Ray, or start one on this machine; whether this was done here and not by the program before.

    Raises:
        EngineError: Ray is not installed, or there is none at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise EngineError("a fleet needs Ray: pip install 'parallel-reason[ray]'")
    import ray

    if ray.is_initialized():
        return False
    try:
        ray.init(address=fleet.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises bare exceptions too, such as for a node that did not start in time
        raise EngineError(f"Ray at {fleet.address or 'this machine'} cannot be reached: {first_line(error)}") from None
    return True


def disconnect() -> None:
    """End the connection, and with it a Ray that was started here."""
    import ray

    ray.shutdown()


async def place(fleet: Fleet, name: str) -> Any:
    """A placement group with a bundle for every engine, once the cluster has room for all of them.

    Raises:
        InputError: a Ray that runs on one machine, and so never grows, has less than they need.
        EngineError: there was no room in time.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    has = ray.cluster_resources()
    wanted = {resource: amount * fleet.engines for resource, amount in fleet.bundle().items()}
    lacking = [(kind, amount) for kind, amount in wanted.items() if amount > has.get(kind, 0)]
    short = [f"{amount:g} {kind} of {has.get(kind, 0):g}" for kind, amount in lacking]
    if short and fleet.address is None and len(ray.nodes()) == 1:
        raise InputError(
            f"{fleet.engines} engines need {', '.join(short)} that this Ray has: give fewer engines, a smaller "
            "cpus_per_engine (fractions are allowed), or the address of a larger cluster"
        )
    group = placement_group([fleet.bundle() or {"CPU": 0.001}] * fleet.engines, strategy=fleet.strategy, name=name)
    try:
        await asyncio.wait_for(_ready(group), fleet.start_s)
    except TimeoutError:
        remove_placement_group(group)
        raise EngineError(
            f"Ray had no room for {fleet.engines} engines within {fleet.start_s:g} s: they need "
            f"{', '.join(short) or 'resources that others use'}"
        ) from None
    return group


async def _ready(group: Any) -> None:
    await group.ready()


def cores_of(fleet: Fleet, rank: int) -> tuple[int, ...]:
    """The cores of an engine that is the ``rank``-th on its node.

    Raises:
        InputError: ``cpus_per_engine`` is not a whole number.
    """
    each = int(fleet.cpus_per_engine)
    if each != fleet.cpus_per_engine or not each:
        raise InputError(f"pin_cores needs whole cores, but cpus_per_engine={fleet.cpus_per_engine:g}")
    return tuple(range(rank * each, (rank + 1) * each))
