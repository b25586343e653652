"""What a page needs of a trace: a row of figures for lists and charts, and all of it for the drill-down.

Names are short, for a page of 10,000 traces holds half a million spans. `assets/trace.js` reads them.
"""

from dataclasses import dataclass
from typing import Any

from parallel_reason.trace.thread import Fork, Span, Thread
from parallel_reason.trace.trace import Trace
from parallel_reason.viewer.critical import clocks, critical_spans
from parallel_reason.viewer.lanes import Lane, lanes
from parallel_reason.viewer.taken_back import taken_back
from parallel_reason.viewer.tokens import TokenTexts

THREAD_TOKENS = 50_000  # of one thread that a page holds; the rest is counted
TEXT_CHARACTERS = 100_000  # of a prompt, an answer or a thread's text
ROW_CHARACTERS = 160  # of these in a list
UNSEEN = -1  # an unknown log-prob


@dataclass(frozen=True)
class Clipped:
    """A text that a page can hold, and how many characters were left out."""

    text: str
    left_out: int = 0


def clip(text: str, most: int = TEXT_CHARACTERS) -> Clipped:
    """The beginning of a text; lone surrogates, which no file can hold, are written as escapes."""
    kept = text[:most].encode("utf-8", "backslashreplace").decode()
    return Clipped(kept, max(0, len(text) - most))


def problem_key(trace: Trace) -> str:
    """What a trace is a sample of: its task, or its prompt if it has none."""
    return trace.task if trace.task is not None else trace.prompt


def row(trace: Trace, correct: bool | None = None) -> dict[str, Any]:
    """The figures of a trace that lists and charts show; all of them are of its ledger."""
    counts = trace.ledger
    return {
        "sample": trace.sample,
        "status": trace.status,
        "correct": correct,
        "answer": None if trace.answer is None else clip(trace.answer, ROW_CHARACTERS).text,
        "sampled": counts.sampled_tokens,
        "critical": counts.critical_path_tokens,
        "acceleration": round(counts.acceleration, 4),
        "wall": round(counts.wall_s, 4),
        "threads": counts.threads,
        "forks": counts.forks,
        "malformed": counts.malformed_forks,
    }


def body(trace: Trace, texts: TokenTexts | None, correct: bool | None = None) -> dict[str, Any]:
    """All of a trace that a page shows; token texts come from ``texts``, and are left out if that is None."""
    marked, gone = critical_spans(trace.threads), taken_back(trace)
    starts, places = clocks(trace.threads)
    times = lanes(trace.threads)
    threads = []
    for number, thread in enumerate(trace.threads):
        one = _thread(thread, times[number], texts)
        one["k"] = [starts[number], *places[number]]
        one["f"] = [_fork(thread, fork, times[number]) for fork in thread.forks]
        for place, span in enumerate(one["s"]):
            if (number, place) in marked and span["o"] == "s":
                span["c"] = 1
            if (number, place) in gone:
                span["g"] = gone[number, place]
        threads.append(one)
    prompt, answer = clip(trace.prompt), clip(trace.answer or "")
    return {
        "id": clip(trace.id, ROW_CHARACTERS).text,
        "key": clip(problem_key(trace), ROW_CHARACTERS).text,
        "prompt": prompt.text,
        "answer": None if trace.answer is None else answer.text,
        "cut": [prompt.left_out, answer.left_out],
        "correct": correct,
        "errors": [clip(error, 2000).text for error in trace.errors[:20]],
        "facts": facts(trace),
        "threads": threads,
    }


def facts(trace: Trace) -> dict[str, str]:
    """How a trace was made and what it came to, as name and value for people."""
    counts = trace.ledger
    sampling = trace.sampling
    given = sampling.model_dump(exclude_defaults=True, mode="json") if sampling else {}
    limits = trace.limits.model_dump(exclude_defaults=True, mode="json") if trace.limits else {}
    options = ", ".join(f"{name}={value}" for name, value in trace.dialect_options.items())
    found = {
        "model": trace.model,
        "dialect": f"{trace.dialect}({options})" if options else trace.dialect,
        "engine": trace.engine,
        "sampling": ", ".join(f"{name}={value}" for name, value in given.items()) or "default",
        "limits": ", ".join(f"{name}={value}" for name, value in limits.items()) or "default",
        "sampled tokens": str(counts.sampled_tokens),
        "critical path": f"{counts.critical_path_tokens} tokens",
        "acceleration": f"{counts.acceleration:.2f}",
        "injected tokens": str(counts.injected_tokens),
        "prefilled, cached": f"{_known(counts.prefilled_tokens)}, {_known(counts.cached_tokens)}",
        "recomputed tokens": _known(counts.recomputed_tokens),
        "threads, forks": f"{counts.threads}, {counts.forks}",
        "malformed forks": str(counts.malformed_forks),
        "wall": f"{counts.wall_s:.3f} s",
        "first token": "unknown" if counts.first_token_s is None else f"{counts.first_token_s:.3f} s",
        "id": trace.id,
    }
    return {name: clip(value, 400).text for name, value in found.items() if value}


def _known(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _thread(thread: Thread, lane: Lane, texts: TokenTexts | None) -> dict[str, Any]:
    left = THREAD_TOKENS
    spans = []
    for span in thread.spans:
        spans.append(_span(span, left, texts))
        left -= min(left, len(span.ids))
    one: dict[str, Any] = {
        "l": thread.label,
        "p": thread.parent,
        "st": thread.status,
        "why": clip(thread.stop_reason, 400).text,
        "n": thread.tokens("sampled"),
        "t": [round(lane.started_s, 6), round(lane.ended_s, 6)],
        "ph": [
            [phase.kind[0], round(phase.started_s, 6), round(phase.ended_s, 6), phase.span] for phase in lane.phases
        ],
        "q": [round(thread.queued_s, 6), round(thread.running_s, 6), round(thread.waiting_s, 6)],
        "pf": [thread.prefilled_tokens, thread.cached_tokens, thread.recomputed_tokens],
        "s": spans,
    }
    if thread.malformed:
        one["m"] = [[fork.at, clip(fork.reason, 400).text] for fork in thread.malformed[:100]]
    if texts is None and thread.text:
        text = clip(thread.text)
        one["x"] = text.text
        if text.left_out:
            one["xc"] = text.left_out
    return one


def _fork(thread: Thread, fork: Fork, lane: Lane) -> dict[str, Any]:
    """A fork, with the seconds at which it happened and at which its results were there."""
    place = fork.at if fork.joined_at is None else fork.joined_at
    forked = max([lane.started_s, *(span.ended_s for span in thread.spans[: fork.at])])
    joined = thread.spans[place].started_s if place < len(thread.spans) else lane.ended_s
    one = {"at": fork.at, "rule": fork.join_rule, "to": fork.children, "t": [round(forked, 6), round(joined, 6)]}
    if not fork.shares_prefix:
        one["alone"] = 1
    if not fork.waited:
        one["beside"] = 1
    if fork.joined_at is not None:
        one["joined"] = fork.joined_at
    return one


def _span(span: Span, most: int, texts: TokenTexts | None) -> dict[str, Any]:
    """A span of at most so many tokens; log-probs are in thousandths, as positive numbers."""
    ids = span.ids[:most]
    one: dict[str, Any] = {"o": span.origin[0], "i": ids}
    if len(ids) < len(span.ids):
        one["cut"] = len(span.ids) - len(ids)
    if span.logprobs:
        one["p"] = [_thousandths(value) for value in span.logprobs[:most]]
    if span.top_logprobs:
        one["top"] = [
            [[token, _thousandths(value)] for token, value in sorted(top.items(), key=lambda item: -item[1])[:5]]
            for top in span.top_logprobs[:most]
        ]
    if span.policy_version is not None:
        one["v"] = span.policy_version
    pieces = texts.pieces(ids) if texts else None
    if pieces is not None:
        one["x"] = pieces
    if texts and span.top_logprobs:
        texts.note(token for top in span.top_logprobs[:most] for token in top)
    return one


def _thousandths(logprob: float) -> int:
    """-1000 times a log-prob; `UNSEEN` for NaN, and a large number for minus infinity."""
    if logprob != logprob:
        return UNSEEN
    return round(-1000 * max(logprob, -1e6)) if logprob < 0 else 0
