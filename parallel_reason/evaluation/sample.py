"""`Sample`: one trace of one problem, graded and counted. All figures of a run are functions of its samples."""

from typing import Literal

from pydantic import Field

from parallel_reason.evaluation.work import Work, work_of
from parallel_reason.record import Record
from parallel_reason.tasks import Task, TaskProblem
from parallel_reason.trace import Ledger, Trace
from parallel_reason.trace.layout import layout
from parallel_reason.trace.thread import Status


class Sample(Record):
    """What a run keeps of a trace in ``samples.jsonl``; the trace itself is in ``traces.jsonl``.

    Attributes:
        problem, sample: key of the problem, and which of its samples.
        trace: id of the trace.
        correct: what the task's verifier says of the answer.
        vote: what the answer counts as in a majority vote; None without an answer.
        well_formed: it finished with an answer, no fork was malformed, and no thread failed.
        status, stop_reason: how the root ended, and what ended it.
        longest_context: the most tokens that one token sees.
        started_at: Unix time.
    """

    version: Literal[1] = 1
    problem: str
    sample: int = Field(ge=0)
    trace: str
    correct: bool
    vote: str | None = None
    well_formed: bool
    status: Status
    stop_reason: str = ""
    longest_context: int = 0
    started_at: float | None = None
    ledger: Ledger
    work: Work

    @property
    def key(self) -> tuple[str, int]:
        """Problem and sample number."""
        return self.problem, self.sample

    @property
    def failed(self) -> bool:
        """Whether a fault, not the model or a limit, ended it: a resumed run runs it again."""
        return _failed(self.status, self.stop_reason)


def failed(trace: Trace) -> bool:
    """See `Sample.failed`."""
    return _failed(trace.status, trace.stop_reason)


def _failed(status: Status, reason: str) -> bool:
    return status == "failed" or (status == "cancelled" and not reason.startswith("limits."))


def sample_of(trace: Trace, task: Task, problem: TaskProblem) -> Sample:
    """Grade and count a trace."""
    row = layout(trace)
    counts = trace.ledger
    return Sample(
        problem=problem.key,
        sample=trace.sample,
        trace=trace.id,
        correct=task.correct(problem, trace.answer),
        vote=task.vote(trace.answer),
        well_formed=trace.status == "finished"
        and trace.answer is not None
        and not counts.malformed_forks
        and not counts.failed_threads,
        status=trace.status,
        stop_reason=trace.stop_reason,
        longest_context=row.longest_context,
        started_at=trace.started_at,
        ledger=counts,
        work=work_of(trace, row),
    )
