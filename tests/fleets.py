"""Fleets in tests: what traces have in common however they were run, and faults."""

import os
import signal
import time
from pathlib import Path

QUICK = {"check_s": 0.5, "hung_after_s": 12.0}


def tokens(traces):
    """All that a model or the runtime wrote in traces, thread by thread."""
    return [
        [(thread.label, [(span.origin, span.ids) for span in thread.spans]) for thread in trace.threads]
        for trace in traces
    ]


def members(llm):
    """The actors of a fleet."""
    return llm.session.engine.pool.actors.members


def restarts(llm):
    return llm.session.engine.pool.actors.restarts


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
