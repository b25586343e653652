"""Traces of version 1, which nested threads in threads and did not say how they were made."""

import json
from typing import Any

from pydantic import ValidationError

from parallel_reason.errors import TraceFileError, first_line
from parallel_reason.trace.trace import Trace


def converted(line: str | bytes) -> Trace | None:
    """A trace of version 1 as one of this version; None if the line is none. What it did not record stays unset.

    Raises:
        TraceFileError: it says that it is of version 1, and cannot be read.
    """
    try:
        old = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(old, dict) or old.get("version") != 1:
        return None
    try:
        threads = _flattened(old.pop("root"))
        prompt = [token for span in threads[0]["spans"] if span["origin"] == "prompt" for token in span["ids"]]
        return Trace.model_validate(old | {"version": 2, "threads": threads, "prompt_ids": prompt})
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise TraceFileError(f"a trace of version 1 that cannot be converted: {first_line(error)}") from None


def _flattened(root: dict[str, Any]) -> list[dict[str, Any]]:
    """Threads depth first, their children by index."""
    threads: list[dict[str, Any]] = []
    waiting: list[tuple[dict[str, Any], int | None, list[int]]] = [(root, None, [])]
    while waiting:
        thread, parent, siblings = waiting.pop()
        number = len(threads)
        siblings.append(number)
        forks = []
        below = []
        for fork in thread.get("forks", []):
            children: list[int] = []
            below += [(child, number, children) for child in fork["children"]]
            rest = {name: value for name, value in fork.items() if name not in ("children", "join")}
            forks.append({**rest, "join_rule": fork["join"], "children": children})
        waiting += reversed(below)
        spans = [
            {name.replace("drops", "taken_back"): value for name, value in span.items()}
            for span in thread.get("spans", [])
        ]
        kept = {name: value for name, value in thread.items() if name not in ("why", "forks", "spans")}
        threads.append(
            {"status": "finished"}
            | kept
            | {"parent": parent, "forks": forks, "spans": spans, "stop_reason": thread.get("why", "")}
        )
    return threads
