"""An eval log of inspect-ai (version 2, JSON), which ``inspect view`` opens: a sample a trace, a span a thread.

Within a thread's span stand its model calls, one a sampled span of tokens, and below it the spans of its children.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from parallel_reason.trace import Thread, Trace
from parallel_reason.viewer.files import compact
from parallel_reason.viewer.lanes import lanes
from parallel_reason.viewer.page import TextsOf
from parallel_reason.viewer.record import TEXT_CHARACTERS, clip, problem_key
from parallel_reason.viewer.runs import Run, Sample
from parallel_reason.viewer.tokens import TokenTexts

STOPS = {"finished": "stop", "length": "max_tokens"}
SCORER = "verifier"


def parts(run: Run, texts_of: TextsOf) -> Iterator[str]:
    """The file in pieces."""
    head: dict[str, Any] | None = None
    graded: list[bool] = []
    for sample in run.samples():
        if head is None:
            head = _head(run, sample.trace)
            yield compact(head)[:-1] + ',"samples":['
        else:
            yield ",\n"
        if sample.correct is not None:
            graded.append(sample.correct)
        yield compact(_sample(sample, texts_of(sample.trace)))
    accuracy = sum(graded) / len(graded) if graded else None
    metrics = {} if accuracy is None else {"accuracy": {"name": "accuracy", "value": accuracy}}
    scores = [{"name": SCORER, "scorer": SCORER, "metrics": metrics}] if metrics else []
    yield f'],"results":{compact({"scores": scores})}}}\n'


def _head(run: Run, trace: Trace) -> dict[str, Any]:
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": _time(trace, 0.0),
            "task": run.name,
            "dataset": {"name": run.name},
            "model": f"parallel_reason/{trace.model}",
            "model_args": {"dialect": trace.dialect, "engine": trace.engine},
            "config": {},
            "packages": trace.versions,
        },
    }


def _sample(sample: Sample, texts: TokenTexts | None) -> dict[str, Any]:
    trace = sample.trace
    prompt = clip(trace.prompt).text
    # Two traces of one problem and one sample number may be in one file: an id of inspect has to be unique.
    suffix = hashlib.blake2b(trace.id.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
    found: dict[str, Any] = {
        "id": f"{clip(problem_key(trace), 80).text} {suffix}",
        "epoch": 1,
        "input": prompt,
        "target": "",
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": clip(trace.text).text}],
        "output": _output(trace, trace.root, trace.answer if trace.answer is not None else trace.text),
        "metadata": {"sample": trace.sample, "ledger": trace.ledger.model_dump(mode="json"), "errors": trace.errors},
        "events": list(_events(trace, texts)),
        "total_time": trace.ledger.wall_s,
    }
    if sample.correct is not None:
        value = "C" if sample.correct else "I"
        found["scores"] = {SCORER: {"value": value, "answer": trace.answer and clip(trace.answer).text}}
    return found


def _events(trace: Trace, texts: TokenTexts | None) -> Iterator[dict[str, Any]]:
    """Begin and end of every thread, and its model calls, by time; a parent begins before its children."""
    timed: list[tuple[float, int, dict[str, Any]]] = []
    for number, (thread, lane) in enumerate(zip(trace.threads, lanes(trace.threads), strict=True)):
        span = f"{trace.id}/{thread.label}"
        above = None if thread.parent is None else f"{trace.id}/{trace.threads[thread.parent].label}"
        begin = {
            "event": "span_begin",
            "id": span,
            "parent_id": above,
            "type": "agent",
            "name": f"thread {thread.label}",
        }
        timed.append((lane.started_s, number, _at(trace, begin, lane.started_s, span)))
        sampled = [one for one in thread.spans if one.origin == "sampled" and one.ids]
        for one in sampled:
            text = texts.of(one.ids[:TEXT_CHARACTERS]) if texts else thread.text if len(sampled) == 1 else ""
            call = {
                "event": "model", "model": trace.model, "input": [], "tools": [], "tool_choice": "none", "config": {},
                "output": _output(trace, thread, text), "working_time": one.ended_s - one.started_s,
                "completed": _time(trace, one.ended_s),
            }  # fmt: skip
            timed.append((one.started_s, number, _at(trace, call, one.started_s, span)))
        end = {"event": "span_end", "id": span}
        timed.append((lane.ended_s, 2 * len(trace.threads) - number, _at(trace, end, lane.ended_s, span)))
    for _, events in groupby(sorted(timed, key=lambda one: one[:2]), key=lambda one: one[0]):
        yield from (event for _, _, event in events)


def _at(trace: Trace, event: dict[str, Any], seconds: float, span: str) -> dict[str, Any]:
    return {**event, "span_id": span, "timestamp": _time(trace, seconds), "working_start": seconds}


def _output(trace: Trace, thread: Thread, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": clip(text).text}
    stop = STOPS.get(thread.status, "unknown")
    usage = {"input_tokens": thread.prefilled_tokens or 0, "output_tokens": thread.tokens("sampled")}
    usage["total_tokens"] = sum(usage.values())
    return {"model": trace.model, "choices": [{"message": message, "stop_reason": stop}], "usage": usage}


def _time(trace: Trace, seconds: float) -> str:
    return datetime.fromtimestamp((trace.started_at or 0.0) + seconds, UTC).isoformat()
