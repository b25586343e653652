"""Chrome's trace event format as JSON, which ui.perfetto.dev and chrome://tracing open.

A trace is a process and a thread of it is a track: one slice for its life, in which its phases lie. Forks and joins are
flow arrows between these slices. Times are microseconds from the start of the first trace in the file, so traces that
ran together lie beside one another.
"""

from collections.abc import Iterator
from typing import Any

from parallel_reason.trace import Trace
from parallel_reason.viewer.critical import critical_spans
from parallel_reason.viewer.files import compact
from parallel_reason.viewer.lanes import Lane, lanes
from parallel_reason.viewer.page import TextsOf
from parallel_reason.viewer.record import clip, problem_key
from parallel_reason.viewer.runs import Run, Sample

SHORT = 400  # characters of a text in a slice's arguments


def parts(run: Run, texts_of: TextsOf) -> Iterator[str]:
    """The file in pieces."""
    first = 0.0
    yield '{"displayTimeUnit":"ms","traceEvents":['
    comma = ""
    for number, sample in enumerate(run.samples(), start=1):
        started = sample.trace.started_at or 0.0
        first = started if number == 1 else first
        for event in events(sample, number, started - first):
            yield comma + compact(event)
            comma = ",\n"
    yield "]}\n"


def events(sample: Sample, process: int, started_s: float) -> Iterator[dict[str, Any]]:
    """The events of one trace as a process of that number."""
    trace, times = sample.trace, lanes(sample.trace.threads)
    marked = critical_spans(trace.threads)
    name = f"{clip(problem_key(trace), 80).text} / {trace.sample}"
    yield {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}}

    def micros(seconds: float) -> float:
        return round((started_s + seconds) * 1e6, 3)

    for number, (thread, lane) in enumerate(zip(trace.threads, times, strict=True)):
        own = {"pid": process, "tid": number + 1}
        yield {"ph": "M", "name": "thread_name", **own, "args": {"name": f"thread {thread.label}"}}
        yield {"ph": "M", "name": "thread_sort_index", **own, "args": {"sort_index": number}}
        arguments = {
            "status": thread.status, "stop_reason": clip(thread.stop_reason, SHORT).text,
            "sampled_tokens": thread.tokens("sampled"), "prefilled_tokens": thread.prefilled_tokens,
            "cached_tokens": thread.cached_tokens, "text": clip(thread.text, SHORT).text,
        }  # fmt: skip
        life = {"ph": "X", "cat": "thread", "name": thread.label, **own, "ts": micros(lane.started_s)}
        yield {**life, "dur": round((lane.ended_s - lane.started_s) * 1e6, 3), "args": arguments}
        for phase in lane.phases:
            slice_: dict[str, Any] = {
                "ph": "X",
                "cat": phase.kind,
                "name": phase.kind,
                **own,
                "ts": micros(phase.started_s),
            }
            slice_["dur"] = round((phase.ended_s - phase.started_s) * 1e6, 3)
            if phase.span is not None:
                tokens = len(thread.spans[phase.span].ids)
                slice_["args"] = {"tokens": tokens, "critical_path": (number, phase.span) in marked}
            yield slice_
    for flow in _flows(trace, times):
        yield {**flow, "id": process * 1_000_000 + flow["id"], "pid": process, "ts": micros(flow["ts"])}


def _flows(trace: Trace, times: list[Lane]) -> Iterator[dict[str, Any]]:
    """Two arrows a child: from its parent where it forked, and back where its result was there."""
    for number, thread in enumerate(trace.threads):
        for fork in thread.forks:
            forked = max([times[number].started_s, *(span.ended_s for span in thread.spans[: fork.at])])
            place = fork.at if fork.joined_at is None else fork.joined_at
            joined = thread.spans[place].started_s if place < len(thread.spans) else times[number].ended_s
            for child in fork.children:
                yield _end("s", "fork", 2 * child, number, forked)
                yield _end("f", "fork", 2 * child, child, times[child].started_s)
                if fork.waited:
                    yield _end("s", "join", 2 * child + 1, child, times[child].ended_s)
                    yield _end("f", "join", 2 * child + 1, number, joined)


def _end(phase: str, name: str, flow: int, thread: int, seconds: float) -> dict[str, Any]:
    event = {"ph": phase, "cat": "flow", "name": name, "id": flow, "tid": thread + 1, "ts": seconds}
    return {**event, "bp": "e"} if phase == "f" else event  # the slice around it, not the next one
