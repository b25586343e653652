"""MRT's progress bonus: how much nearer the joins of a trace brought the policy to the right answer.

The bonus of an episode is alpha times the change of what the policy makes of the right answer when it must answer at
once (Qu et al. 2503.07572, there as a rate of success; here as a log-prob, which needs no sampling). An episode of a
parallel trace ends with a join of its root. So that of all episodes is alpha times the log-prob of the answer after
the last join, less that before the first token: what lies between them cancels out.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from parallel_reason import InputError, ParallelLLM, Trace
from parallel_reason.record import FrozenRecord
from parallel_reason.tasks import TaskProblem
from parallel_reason.trace.layout import Layout, Segment, layout

ANSWER = "ANSWER"  # in a text, where the right answer stands


class Progress(FrozenRecord):
    r"""``alpha`` times the change of the answer's log-prob, in nats; 0 for a trace that never joined.

    Attributes:
        text: with which the policy is made to answer; ``ANSWER`` in it is the answer of the task.
    """

    kind: Literal["progress"] = "progress"
    alpha: float = Field(0.1, gt=0)
    text: str = f"\n\nThe answer is \\boxed{{{ANSWER}}}."

    @field_validator("text")
    @classmethod
    def _holds_the_answer(cls, text: str) -> str:
        if ANSWER not in text:
            raise ValueError(f"text is {text!r:.60}; it needs {ANSWER}, where the right answer stands")
        return text

    def measured(self, llm: ParallelLLM, problems: Sequence[TaskProblem], traces: Sequence[Trace]) -> "Measured":
        """The part with the log-probs of some traces, under the weights that the engine has now.

        Args:
            problems: of the traces, whose ``task`` is a key.

        Raises:
            InputError: the answers of the task are no texts, or the dialect grafts.
        """
        references = {problem.key: problem.reference for problem in problems}
        wrong = next((reference for reference in references.values() if not isinstance(reference, str)), None)
        if wrong is not None:
            raise InputError(
                f"reward 'progress' needs a task whose answers are texts, such as jsonl, not {wrong!r:.60}"
            )
        answers = {
            key: llm.tokenizer.encode(self.text.replace(ANSWER, reference), add_special_tokens=False)
            for key, reference in references.items()
        }
        found = {trace.id: (first_and_last(trace), answers[trace.task or ""]) for trace in traces}
        rows = {
            (tuple(context), tuple(answer)) for contexts, answer in found.values() if contexts for context in contexts
        }
        scores = llm.run_coroutine(_scored(llm, sorted(rows)))
        values = {}
        for name, (contexts, answer) in found.items():
            before, after = (scores[tuple(context), tuple(answer)] for context in contexts) if contexts else (0.0, 0.0)
            values[name] = self.alpha * (after - before)
        return Measured(values)


@dataclass(frozen=True)
class Measured:
    """A `Progress` of certain traces.

    Attributes:
        values: by the id of the trace.
    """

    kind: ClassVar[str] = "progress"
    values: dict[str, float]

    def value(self, trace: Trace, correct: bool, update: int) -> float:
        """The part of one of these."""
        return self.values[trace.id]


def first_and_last(trace: Trace) -> tuple[list[int], list[int]] | None:
    """What the root saw before its first sampled token, and right after its last join; token ids.

    None if it sampled nothing, or joined nothing.

    Raises:
        InputError: after its join it does not see a plain text, whose log-probs any engine gives.
    """
    root = trace.root
    joins = [fork.at if fork.waited else fork.joined_at for fork in root.forks]
    last = max((at for at in joins if at is not None), default=None)
    if last is None or not root.ran:
        return None
    row = layout(trace)
    segments = iter([segment for segment in row.segments if segment.thread == 0])
    places = {number: next(segments) for number, span in enumerate(root.spans) if span.ids}
    sampled = [number for number in places if root.spans[number].origin == "sampled"]
    first_seen = _seen(row, places[sampled[0]], whole=False)
    after = next((number for number in sampled if number >= last), None)
    last_seen = _seen(row, places[max(places) if after is None else after], whole=after is None)
    return first_seen, last_seen


def _seen(row: Layout, segment: Segment, whole: bool) -> list[int]:
    """The ids that a segment sees, or if ``whole`` those that are seen after it."""
    intervals = [*segment.visible, *([(segment.start, segment.stop)] if whole else [])]
    seen = [token for start, stop in intervals for token in range(start, stop)]
    if [int(row.positions[token]) for token in seen] != list(range(len(seen))):
        raise InputError("reward 'progress' needs a dialect that joins by message or relinearises: no graft is a text")
    return [int(row.ids[token]) for token in seen]


Row = tuple[tuple[int, ...], tuple[int, ...]]


async def _scored(llm: ParallelLLM, rows: Sequence[Row]) -> dict[Row, float]:
    """The log-prob of each answer after its context, both of a row, in nats."""

    async def one(context: tuple[int, ...], answer: tuple[int, ...]) -> float:
        return sum((await llm.session.score([*context, *answer]))[-len(answer) :])

    return dict(zip(rows, await asyncio.gather(*(one(*row) for row in rows)), strict=True))
