"""ATIF v1.7, the Agent Trajectory Interchange Format of Harbor: one trajectory a line, one a trace.

The root thread is the trajectory, every other thread an embedded subagent trajectory of it; a step whose fork is joined
refers to its children. ATIF is a tree: which children a join waited for, and by which rule, stands in ``extra``.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from parallel_reason.trace import Fork, Span, Thread, Trace
from parallel_reason.viewer.files import compact
from parallel_reason.viewer.page import TextsOf
from parallel_reason.viewer.runs import Run, Sample
from parallel_reason.viewer.tokens import TokenTexts

VERSION = "ATIF-v1.7"
AGENT = "parallel-reason"


def parts(run: Run, texts_of: TextsOf) -> Iterator[str]:
    """The file in pieces."""
    for sample in run.samples():
        yield compact(trajectory(sample, texts_of(sample.trace))) + "\n"


def trajectory(sample: Sample, texts: TokenTexts | None) -> dict[str, Any]:
    """One trace; without ``texts``, what was not sampled has no text."""
    trace = sample.trace
    root, *below = [_thread(trace, number, texts) for number in range(len(trace.threads))]
    counts = trace.ledger
    root["session_id"] = trace.id
    root["final_metrics"] = {
        "total_completion_tokens": counts.sampled_tokens,
        "total_steps": sum(len(one["steps"]) for one in (root, *below)),
        "extra": counts.model_dump(mode="json"),
    }
    if counts.prefilled_tokens is not None:
        root["final_metrics"]["total_prompt_tokens"] = counts.prefilled_tokens
    if counts.cached_tokens is not None:
        root["final_metrics"]["total_cached_tokens"] = counts.cached_tokens
    root["extra"] |= {
        "task": trace.task, "sample": trace.sample, "answer": trace.answer, "correct": sample.correct,
        "dialect": trace.dialect, "errors": trace.errors,
    }  # fmt: skip
    if below:
        root["subagent_trajectories"] = below
    return root


def _thread(trace: Trace, number: int, texts: TokenTexts | None) -> dict[str, Any]:
    thread = trace.threads[number]
    steps: list[dict[str, Any]] = []
    for place in range(len(thread.spans) + 1):
        joined = [fork for fork in thread.forks if fork.at == place]
        if joined:
            if not steps or steps[-1]["source"] != "agent":  # what refers to children is a step of the agent
                steps.append({"source": "agent", "message": "", "llm_call_count": 0})
            steps[-1]["observation"] = {"results": [_result(trace, fork) for fork in joined]}
        if place < len(thread.spans) and thread.spans[place].ids:
            steps.append(_step(trace, thread, thread.spans[place], texts))
    if number == 0 and not any(step["source"] == "user" for step in steps):
        steps.insert(0, {"source": "user", "message": trace.prompt})
    steps = steps or [{"source": "system", "message": ""}]
    agent = {"name": AGENT, "version": trace.versions.get(AGENT, "unknown"), "model_name": trace.model}
    return {
        "schema_version": VERSION,
        "trajectory_id": f"{trace.id}/{thread.label}",
        "agent": agent,
        "steps": [{"step_id": at, **step} for at, step in enumerate(steps, start=1)],
        "extra": {"label": thread.label, "status": thread.status, "stop_reason": thread.stop_reason},
    }


def _step(trace: Trace, thread: Thread, span: Span, texts: TokenTexts | None) -> dict[str, Any]:
    text = texts.of(span.ids) if texts else thread.text if span is _only_sampled(thread) else ""
    if span.origin == "prompt" and not text:
        text = trace.prompt
    source = {"sampled": "agent", "prompt": "user"}.get(span.origin, "system")
    step: dict[str, Any] = {"source": source, "message": text, "extra": {"origin": span.origin}}
    if trace.started_at is not None:
        step["timestamp"] = datetime.fromtimestamp(trace.started_at + span.started_s, UTC).isoformat()
    if span.origin == "sampled":
        step["metrics"] = {"completion_tokens": len(span.ids), "completion_token_ids": span.ids}
        if span.logprobs and all(map(isfinite, span.logprobs)):  # JSON has no number for others
            step["metrics"]["logprobs"] = span.logprobs
    return step


def _only_sampled(thread: Thread) -> Span | None:
    """The one span that a thread sampled; None if there are several."""
    sampled = [span for span in thread.spans if span.origin == "sampled" and span.ids]
    return sampled[0] if len(sampled) == 1 else None


def _result(trace: Trace, fork: Fork) -> dict[str, Any]:
    """What a step observes of a fork: references to the children."""
    labels = [trace.threads[child].label for child in fork.children]
    return {
        "content": f"{len(labels)} threads, joined by {fork.join_rule}" if fork.waited else f"{len(labels)} threads",
        "subagent_trajectory_ref": [{"trajectory_id": f"{trace.id}/{label}"} for label in labels],
    }
