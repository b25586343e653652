"""Ray for tests, what traces have in common however they were run, and faults."""

import contextlib
import logging
import os
import signal
import socket
import time
from pathlib import Path

ROOT = str(Path(__file__).parents[1])
QUICK = {"check_s": 0.5, "hung_after_s": 4.0}
WORKERS = {"env_vars": {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}}  # which import the package from here
PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def node(**resources):
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
def ray_cluster(**head):
    """A Ray on this machine, to which nodes can be added; the program is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=node(**head))
    try:
        ray.init(address=cluster.address, runtime_env=WORKERS, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def tokens(traces):
    """All that a model or the runtime wrote in traces, thread by thread."""
    return [
        [(thread.label, [(span.origin, span.ids) for span in thread.spans]) for thread in trace.threads]
        for trace in traces
    ]


def members(llm):
    """The actors of a fleet."""
    return llm.session.engine.pool.crew.members


def restarts(llm):
    return llm.session.engine.pool.crew.restarts


def wait_until(condition, within_s=60):
    """Wait for something that other processes do."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def alive(pid):
    """Whether a process runs, a zombie not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class After:
    """An ``on_trace`` that does something once, after so many traces."""

    def __init__(self, count, act):
        self.count, self.act, self.seen = count, act, []

    def __call__(self, trace):
        self.seen.append(trace)
        if len(self.seen) == self.count:
            self.act()


def kill(pid, how=signal.SIGKILL):
    os.kill(pid, how)
