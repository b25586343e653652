"""OpenTelemetry spans as OTLP JSON, by the GenAI semantic conventions v1.41.0 (status: development, so pinned here).

A run of a trace is an ``invoke_workflow`` span, each thread a ``text_completion`` span below its parent's, each join a
span in its parent with links to the spans of the children that it waited for. What the conventions have no name for
stands under ``parallel_reason.``. One request a line: what `otlpjsonfile` of the collector reads.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

from parallel_reason.trace import Thread, Trace
from parallel_reason.viewer.files import compact
from parallel_reason.viewer.lanes import Lane, lanes
from parallel_reason.viewer.page import TextsOf
from parallel_reason.viewer.record import clip, problem_key
from parallel_reason.viewer.runs import Run, Sample

SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
INTERNAL, CLIENT = 1, 3  # span kinds
OK, ERROR = 1, 2  # status codes


def parts(run: Run, texts_of: TextsOf) -> Iterator[str]:
    """The file in pieces."""
    for sample in run.samples():
        yield compact(request(sample)) + "\n"


def request(sample: Sample) -> dict[str, Any]:
    """One trace as an export request."""
    trace = sample.trace
    resource = {"service.name": "parallel-reason", "parallel_reason.version": trace.versions.get("parallel-reason")}
    scope = {"name": "parallel_reason.trace", "version": str(trace.version)}
    spans = {"scope": scope, "schemaUrl": SCHEMA, "spans": list(_spans(sample))}
    found = {"resource": {"attributes": _attributes(resource)}, "schemaUrl": SCHEMA, "scopeSpans": [spans]}
    return {"resourceSpans": [found]}


def _spans(sample: Sample) -> Iterator[dict[str, Any]]:
    trace, times = sample.trace, lanes(sample.trace.threads)
    counts = trace.ledger
    yield _span(trace, "workflow", None, f"invoke_workflow {trace.dialect}", INTERNAL, times[0]) | {
        "attributes": _attributes(
            {
                "gen_ai.operation.name": "invoke_workflow",
                "gen_ai.workflow.name": trace.dialect,
                "gen_ai.usage.output_tokens": counts.sampled_tokens,
                "gen_ai.usage.input_tokens": counts.prefilled_tokens,
                "parallel_reason.task": clip(problem_key(trace), 400).text,
                "parallel_reason.sample": trace.sample,
                "parallel_reason.answer": None if trace.answer is None else clip(trace.answer, 400).text,
                "parallel_reason.correct": sample.correct,
                "parallel_reason.critical_path_tokens": counts.critical_path_tokens,
                "parallel_reason.acceleration": counts.acceleration,
            }
        ),
        "status": {"code": ERROR, "message": "; ".join(trace.errors)} if trace.errors else {"code": OK},
    }
    for number, thread in enumerate(trace.threads):
        above = "workflow" if thread.parent is None else trace.threads[thread.parent].label
        span = _span(trace, thread.label, above, f"text_completion {trace.model}", CLIENT, times[number])
        failed = {"code": ERROR, "message": thread.stop_reason}
        yield span | {
            "attributes": _attributes(_of_thread(trace, thread)),
            "status": failed if thread.status == "failed" else {"code": OK},
        }
        yield from _joins(trace, number, times[number])


def _of_thread(trace: Trace, thread: Thread) -> dict[str, Any]:
    sampling = trace.sampling.of(thread.label) if trace.sampling else None
    found: dict[str, Any] = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": trace.engine or None,
        "gen_ai.request.model": trace.model,
        "gen_ai.response.finish_reasons": [{"finished": "stop"}.get(thread.status, thread.status)],
        "gen_ai.usage.output_tokens": thread.tokens("sampled"),
        "gen_ai.usage.input_tokens": thread.prefilled_tokens,
        "gen_ai.usage.cache_read.input_tokens": thread.cached_tokens,
        "parallel_reason.thread": thread.label,
        "parallel_reason.stop_reason": thread.stop_reason,
        "parallel_reason.queued_s": thread.queued_s,
        "parallel_reason.waiting_s": thread.waiting_s,
    }
    if sampling is not None:
        found |= {
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.max_tokens": sampling.max_tokens,
            "gen_ai.request.seed": sampling.seed,
        }
    return found


def _joins(trace: Trace, number: int, lane: Lane) -> Iterator[dict[str, Any]]:
    """The joins of a thread, each linked to the children that it waited for."""
    thread = trace.threads[number]
    for at, fork in enumerate(fork for fork in thread.forks if fork.waited):
        place = fork.at if fork.joined_at is None else fork.joined_at
        waits = [phase for phase in lane.phases if phase.kind == "waiting"]
        until = thread.spans[place].started_s if place < len(thread.spans) else lane.ended_s
        since = next((phase.started_s for phase in waits if phase.ended_s == until), until)
        links = [
            {"traceId": _id(trace.id, 16), "spanId": _id(f"{trace.id}/{trace.threads[child].label}", 8),
             "attributes": _attributes({"parallel_reason.link": "join"})}
            for child in fork.children
        ]  # fmt: skip
        join = _span(trace, f"{thread.label}/join{at}", thread.label, "join", INTERNAL, Lane(since, until, ()))
        rule = {"parallel_reason.join_rule": fork.join_rule, "parallel_reason.children": len(links)}
        yield join | {"links": links, "attributes": _attributes(rule)}


def _span(trace: Trace, name: str, above: str | None, title: str, kind: int, lane: Lane) -> dict[str, Any]:
    span = {
        "traceId": _id(trace.id, 16),
        "spanId": _id(f"{trace.id}/{name}", 8),
        "name": title,
        "kind": kind,
        "startTimeUnixNano": _nanos(trace, lane.started_s),
        "endTimeUnixNano": _nanos(trace, lane.ended_s),
    }
    return span if above is None else {**span, "parentSpanId": _id(f"{trace.id}/{above}", 8)}


def _id(name: str, size: int) -> str:
    """An id of so many bytes, as hex, the same for the same name."""
    return hashlib.blake2b(name.encode("utf-8", "backslashreplace"), digest_size=size).hexdigest()


def _nanos(trace: Trace, seconds: float) -> str:
    return str(round(((trace.started_at or 0.0) + seconds) * 1e9))


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    """OTLP's key and value pairs; what is not known is left out."""
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": str(value)}
