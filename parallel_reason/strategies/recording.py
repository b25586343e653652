"""Files of recorded branches: a JSON list of problems, as the SCOUT test bed of Parallel-Probe publishes them.

Traces of this project are branches too, without probes; they may fork.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from parallel_reason.errors import InputError
from parallel_reason.strategies.branches import Ints
from parallel_reason.strategies.recorded import RecordedProblem
from parallel_reason.tasks import Task
from parallel_reason.trace import Trace, read_traces
from parallel_reason.trace.ledger import sampled_by_step

Tokens = Annotated[int, Field(ge=0, le=10_000_000)]


class ProblemRecord(BaseModel):
    """One problem of a file. Other keys are of no use here.

    Attributes:
        each_branch: of each branch, its answers at every probe, its length in tokens, and its answer.
        probe_freq: tokens between two probes.
    """

    question: str
    gold_answer: str
    probe_freq: int = Field(ge=1)
    each_branch: list[tuple[list[str], Tokens, str]] = Field(min_length=1)


def any_text(answer: str) -> bool:
    """Every text votes, as in the published table, where an answer that could not be read is the answer ``ERR``."""
    return True


def readable(answer: str) -> bool:
    """What could be read votes; ``ERR`` and an empty text do not."""
    return answer.strip() not in ("", "ERR")


def of_aime(answer: str) -> bool:
    """Only what can be the answer of a problem of AIME votes: a whole number from 0 to 999."""
    return re.fullmatch(r"[0-9]{1,3}", answer) is not None


FORMS: dict[str, Callable[[str], bool]] = {"any": any_text, "readable": readable, "aime": of_aime}


def read_recording(file: Path, is_answer: Callable[[str], bool] = readable) -> list[RecordedProblem]:
    """The problems of a file.

    Args:
        is_answer: one of `FORMS`, or a function of one's own.

    Raises:
        InputError: the file cannot be read, or has no problems; in one line, with the place.
    """
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    try:
        records = TypeAdapter(list[ProblemRecord]).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole file"
        raise InputError(f"{file}, at {place}: {first['msg']}; give a list of problems with their branches") from None
    if not records:
        raise InputError(f"{file} has no problems")
    return [
        RecordedProblem.of(one.question, one.gold_answer, one.probe_freq, one.each_branch, is_answer) for one in records
    ]


def read_runs(file: Path, task: Task) -> list[RecordedProblem]:
    """The problems of a file of traces; ``task`` says which answers are right.

    Traces may fork: what all their threads sampled is charged in total, and their critical path one after another.

    Raises:
        InputError: a trace that cannot be read, or is of another task.
    """
    problems = {problem.key: problem for problem in task.test()}
    runs: dict[str, list[Trace]] = {}
    for trace in read_traces(file):
        if trace.task not in problems:
            raise InputError(f"{file}: trace {trace.id} is of {trace.task!r:.60}, which is no problem of {task.name}")
        runs.setdefault(trace.task, []).append(trace)
    if not runs:
        raise InputError(f"{file} has no traces")
    recorded = []
    for key, traces in runs.items():
        right = {trace.answer for trace in traces if task.correct(problems[key], trace.answer)}
        said = ["(right)" if trace.answer in right else trace.answer or "" for trace in traces]
        lengths = [trace.ledger.critical_path_tokens for trace in traces]
        branches = [(list[str](), length, answer) for length, answer in zip(lengths, said, strict=True)]
        problem = RecordedProblem.of(problems[key].text, "(right)", 1, branches, readable)
        if any(len(trace.threads) > 1 for trace in traces):
            problem = replace(problem, sampled=_sampled(traces, max(lengths)))
        recorded.append(problem)
    return recorded


def _sampled(traces: list[Trace], longest: int) -> Ints:
    """By all threads of each trace after so many steps of its critical path, and at its end all of them."""
    table = np.zeros((len(traces), longest + 1), dtype=np.int64)
    for row, trace in zip(table, traces, strict=True):
        path = trace.ledger.critical_path_tokens
        row[1 : path + 1] = np.cumsum(sampled_by_step(trace.threads)[:path])
        row[path:] = trace.ledger.sampled_tokens
    return table
