"""A trace as flat text: every token written once, depth first, as the public systems show or train on it.

A thread's own tokens up to a fork, then each child with all below it, then the thread's next. Where a relinearised join
laid the children down once more, these copies stand for all but the first. Tokens that a dialect took back are there
too, as they were sampled. `parallel_reason.runtime.replay` reads such text back.
"""

from parallel_reason.trace.trace import Trace
from parallel_reason.trace.walk import ChildStep, SpanStep, walk


def flatten(trace: Trace) -> list[int]:
    """Ids of all tokens after the prompt, [tokens]."""
    ids: list[int] = []
    hidden: set[int] = set()  # threads that stand in the copies of a relinearised join, and all below them
    for step in walk(trace.threads):
        parent = trace.threads[step.thread].parent
        if isinstance(step, ChildStep):
            later = step.fork.join_rule == "relinearise" and (
                step.thread != step.fork.children[0] or not trace.threads[step.thread].ran
            )
            if later or parent in hidden:
                hidden.add(step.thread)
        if isinstance(step, SpanStep) and step.span.origin != "prompt" and step.thread not in hidden:
            ids += step.span.ids
    return ids
