"""A Ray on this machine for tests and benchmarks: small nodes, which can be added and removed."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[1])
WORKERS = {"env_vars": {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}}  # which import the package from here
PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def node(**resources: Any) -> dict[str, Any]:
    """What `ray.cluster_utils.Cluster` is given for a small node.

    Ports are chosen here: where Ray's own agents choose them, a node waits for that, and gives up on a busy machine.
    """
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in PORTS]
        for each in free:
            each.bind(("127.0.0.1", 0))
        ports = {name: each.getsockname()[1] for name, each in zip(PORTS, free, strict=True)}
    return {"object_store_memory": 80 << 20, "include_dashboard": False, **ports, **resources}


@contextlib.contextmanager
def ray_cluster(**head: Any) -> Iterator[Any]:
    """A cluster of one node, to which this process is connected; ``head`` are resources of the node.

    Where ``RAY_ADDRESS`` names a cluster, that one is used, and cannot be changed.
    """
    import ray
    from ray._private import utils
    from ray.cluster_utils import Cluster

    address = os.environ.get("RAY_ADDRESS")
    cluster: Any = None
    if address is None:
        # As where ray[default] is not installed: the dashboard's parts take longer to start than Ray waits for them.
        utils.get_dashboard_dependency_error = lambda: ImportError("not wanted here")
        cluster = Cluster(initialize_head=True, head_node_args=node(**head))
        address = cluster.address
    try:
        ray.init(address=address, runtime_env=WORKERS, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        if cluster is not None:
            cluster.shutdown()
