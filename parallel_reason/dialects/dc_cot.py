"""The DC-CoT grammar: three workers in every fork, laid end to end.

    ... <spawn_workers>                              the parent pauses
    child k:  <worker_k>  ...  </worker_k>           k from 1 to 3, the same context
    parent:   [child 1]<worker_2> ... </worker_2><worker_3> ... </worker_3></spawn_workers> ...

The join relinearises, with nothing between the pieces. A worker that did not close its tag is joined as it is, its end
of text included, as in the released rollouts. Workers do not fork, and end at their own closing tag only. The answer is
what stands in ``<answer>``.

Source: DC-CoT (2601.23027), vllm_rollout_parallel_workers.py of its released code.
"""

from typing import Any, ClassVar

from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    ChildSpec,
    Continuation,
    Continue,
    Finish,
    Insert,
    Rewrite,
    StartFork,
    Stops,
    ThreadView,
    ids_of,
)
from parallel_reason.dialects.tagged import Tagged, closes_and_copies
from parallel_reason.trace.thread import JoinRule

WORKERS = range(1, 4)


class DcCot(Tagged):
    """The grammar over token ids."""

    name: ClassVar[str] = "dc_cot"
    tags: ClassVar[dict[str, str]] = {
        "think": "<think>", "think_end": "</think>",
        "answer": "<answer>", "answer_end": "</answer>",
        "spawn": "<spawn_workers>", "spawn_end": "</spawn_workers>",
        **{f"worker{k}": f"<worker_{k}>" for k in WORKERS},
        **{f"worker{k}_end": f"</worker_{k}>" for k in WORKERS},
    }  # fmt: skip

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """The workers' tokens are concatenated."""
        return "relinearise"

    def stops(self, depth: int) -> Stops:
        """``<spawn_workers>`` in the root, the end of any worker in a child."""
        return self.stops_at(*(f"worker{k}_end" for k in WORKERS)) if depth else self.stops_at("spawn")

    def step(self, view: ThreadView) -> Action:
        """Fork at ``<spawn_workers>``; a worker ends at its own ``</worker_k>``."""
        if view.stopped_at == "start":
            return Continue()
        if view.stopped_at == "eos":
            return Finish()
        if view.depth == 0:
            headers = (self.vocabulary.encode(f"<worker_{k}>") for k in WORKERS)
            return StartFork(tuple(ChildSpec((Insert(header),)) for header in headers))
        own = [f"worker{k}" for k in WORKERS]
        opened = [match.name for match in self.vocabulary.matches(view.ids[: view.since_join]) if match.name in own]
        wrote = self.vocabulary.tag_at_end(view.sampled, [f"{name}_end" for name in own])
        return Continue() if opened and wrote != f"{opened[-1]}_end" else Finish()

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """The workers, then ``</spawn_workers>``."""
        headers = [ids_of(child.header) for child in children]
        closes, copies = closes_and_copies(children, [Rewrite()] * len(children), headers)
        return Continuation((*copies, Insert(self.vocabulary.encode("</spawn_workers>"))), closes)

    def answer(self, view: ThreadView) -> str | None:
        """What stands in ``<answer>``."""
        return self.answer_inside(view, "answer")
