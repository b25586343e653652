"""What Ray's dashboard and its Prometheus endpoint show of a fleet, through Ray's own metrics API."""

from parallel_reason.fleet.dispatch import Dispatcher
from parallel_reason.trace import Trace


class FleetMetrics:
    """Counters and gauges; all have the tag ``fleet``, and most ``engine``."""

    def __init__(self, fleet: str) -> None:
        """Ray is connected."""
        from ray.util.metrics import Counter, Gauge, Histogram

        tags = ("fleet", "engine")
        self._traces = Counter("parallel_reason_traces", "Traces that ended.", (*tags, "status"))
        self._tokens = Counter("parallel_reason_sampled_tokens", "Tokens that were sampled.", tags)
        self._cached = Counter("parallel_reason_cached_tokens", "Context tokens served from a prefix cache.", tags)
        self._prefilled = Counter("parallel_reason_prefilled_tokens", "Context tokens that engines took in.", tags)
        self._restarts = Counter("parallel_reason_restarts", "Engines that died and were restarted.", tags)
        self._leaks = Counter("parallel_reason_leaks", "Idle engines that held KV or memory.", tags)
        self._in_flight = Gauge("parallel_reason_traces_in_flight", "Traces on engines.", ("fleet",))
        self._waiting = Gauge("parallel_reason_traces_waiting", "Traces that wait for an engine.", ("fleet",))
        self._version = Gauge("parallel_reason_policy_version", "Of the weights that sample.", ("fleet",))
        self._seconds = Histogram(
            "parallel_reason_trace_seconds", "From the start of a trace to its end.",
            [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000], tags,
        )  # fmt: skip
        self._fleet = {"fleet": fleet}

    def ended(self, engine: int, trace: Trace) -> None:
        """A trace came back."""
        tags = self._of(engine)
        self._traces.inc(1, {**tags, "status": trace.status})
        self._seconds.observe(trace.ledger.wall_s, tags)
        for counter, value in (
            (self._tokens, trace.ledger.sampled_tokens),
            (self._cached, trace.ledger.cached_tokens),
            (self._prefilled, trace.ledger.prefilled_tokens),
        ):
            if value:
                counter.inc(value, tags)

    def restarted(self, engine: int) -> None:
        """An engine died."""
        self._restarts.inc(1, self._of(engine))

    def leaked(self, engine: int) -> None:
        """An idle engine holds what it should not."""
        self._leaks.inc(1, self._of(engine))

    def queue(self, dispatcher: Dispatcher) -> None:
        """How many traces run, and wait."""
        self._waiting.set(dispatcher.waiting, self._fleet)
        self._in_flight.set(dispatcher.in_flight, self._fleet)

    def version(self, version: int) -> None:
        """All engines have these weights."""
        self._version.set(version, self._fleet)

    def _of(self, engine: int) -> dict[str, str]:
        return {**self._fleet, "engine": str(engine)}
