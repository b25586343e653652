"""The Ray cluster under a fleet: the connection to it, and room for the engines on its nodes."""

import asyncio
import importlib.util
import logging
import os
import socket
from functools import partial
from typing import Any, Literal

from parallel_reason.errors import EngineError, InputError, first_line
from parallel_reason.fleet.settings import Fleet

NAMESPACE = "parallel_reason"
LISTENS_S = 5.0  # that a machine may take to accept a connection
Connection = Literal["given", "joined", "own"]  # by the program before; by the fleet; to a Ray that it started


def connect(fleet: Fleet) -> Connection:
    """Connect to the cluster that was asked for or is found, or else start a Ray on this machine.

    Raises:
        EngineError: Ray is not installed, or there is none at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise EngineError("a fleet needs Ray: pip install 'parallel-reason[ray]'")
    import ray

    if ray.is_initialized():
        return "given"
    asked = fleet.address or os.environ.get("RAY_ADDRESS")
    init = partial(ray.init, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    if asked and not _listens(asked):
        raise EngineError(f"Ray at {asked} cannot be reached: nothing listens there")
    if address := asked or _running_here():
        try:
            init(address=address)
            return "joined"
        except Exception as error:  # Ray raises bare exceptions too, such as for a node that did not start in time
            if asked:
                raise EngineError(f"Ray at {asked} cannot be reached: {first_line(error)}{_token_hint()}") from None
    try:
        init(address="local")
    except Exception as error:
        raise EngineError(f"Ray did not start on this machine: {first_line(error)}") from None
    return "own"


def disconnect() -> None:
    """End the connection, and with it a Ray that was started here."""
    import ray

    ray.shutdown()


def describe() -> str:
    """What Ray finds here, in one line: the cluster that a fleet without an address would use."""
    if importlib.util.find_spec("ray") is None:
        return "-; fleets need it: pip install 'parallel-reason[ray]'"
    import ray

    asked = os.environ.get("RAY_ADDRESS")
    address = asked or _running_here()
    if address is None:
        return "no cluster runs here; a fleet starts a Ray of its own"
    if not _listens(address):
        return f"RAY_ADDRESS={address} cannot be reached: nothing listens there"
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # as in `connect`
        return f"Ray at {address} cannot be reached: {first_line(error)}{_token_hint()}"
    try:
        has = ray.cluster_resources()
        amounts = ", ".join(f"{has[kind]:g} {kind}" for kind in ("CPU", "GPU") if has.get(kind))
        nodes = sum(node["Alive"] for node in ray.nodes())
        return f"a cluster of {nodes} node{'s' * (nodes > 1)}: {amounts or 'no CPU'}"
    finally:
        ray.shutdown()


def _token_hint() -> str:
    """Ray does not say that it was refused for want of a token, which `ray start` asks for from 2.60 on."""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return ""
    return "; set RAY_AUTH_MODE=token if `ray start` said that token authentication is enabled"


def _running_here() -> str | None:
    """The address of the Ray that runs on this machine; one that was killed leaves its address behind."""
    from ray._private.utils import read_ray_address

    address: str | None = read_ray_address()
    return address if address and _listens(address) else None


def _listens(address: str) -> bool:
    """Whether something listens at a ``host:port``; Ray itself would try for a minute. True for other addresses."""
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdigit():
        return True
    try:
        socket.create_connection((host, int(port)), timeout=LISTENS_S).close()
    except OSError:
        return False
    return True


async def place(fleet: Fleet, name: str, *, grows: bool) -> Any:
    """A placement group with a bundle for every engine, once the cluster has room for all of them.

    Args:
        grows: whether nodes may join, by hand or by Ray's autoscaler, which sees what is waited for.

    Raises:
        InputError: there is not enough, and never will be.
        EngineError: there was no room in time.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    has = ray.cluster_resources()
    wanted = {resource: amount * fleet.engines for resource, amount in fleet.bundle().items()}
    lacking = [(kind, amount) for kind, amount in wanted.items() if amount > has.get(kind, 0)]
    short = [f"{amount:g} {kind} of {has.get(kind, 0):g}" for kind, amount in lacking]
    if short and not grows:
        raise InputError(
            f"{fleet.engines} engines need {', '.join(short)} that this Ray has: give fewer engines, a smaller "
            "cpus_per_engine (fractions are allowed), or the address of a larger cluster"
        )
    group = placement_group([fleet.bundle() or {"CPU": 0.001}] * fleet.engines, strategy=fleet.strategy, name=name)
    try:
        async with asyncio.timeout(fleet.start_s):
            await group.ready()
    except TimeoutError:
        remove_placement_group(group)
        raise EngineError(
            f"Ray had no room for {fleet.engines} engines within {fleet.start_s:g} s: they need "
            f"{', '.join(short) or 'resources that others use'}"
        ) from None
    return group


def cores_of(fleet: Fleet, rank: int) -> tuple[int, ...]:
    """The cores of an engine that is the ``rank``-th on its node.

    Raises:
        InputError: ``cpus_per_engine`` is not a whole number.
    """
    each = int(fleet.cpus_per_engine)
    if each != fleet.cpus_per_engine or not each:
        raise InputError(f"pin_cores needs whole cores, but cpus_per_engine={fleet.cpus_per_engine:g}")
    return tuple(range(rank * each, (rank + 1) * each))
