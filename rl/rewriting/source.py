"""Sequential reasoning, from JSONL: what is rewritten."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from parallel_reason import InputError


@dataclass(frozen=True, slots=True)
class Sample:
    """A problem with one way to solve it.

    Attributes:
        id: of the sample; two of one file differ.
        answer: what is right; None if that is not known.
        chain: the reasoning, which is rewritten.
        attempt: what was answered after the reasoning, which stays as it is; empty if there was nothing.
    """

    id: str
    problem: str
    answer: str | None
    chain: str
    attempt: str


def read_samples(file: Path) -> list[Sample]:
    """The samples of a file: an object a line, ``{"problem": ..., "reasoning": ..., "answer": ..., "id": ...}``.

    The ``answer`` may be left out, and so may the ``id``, which is then the number of the line. In a reasoning with
    ``</think>``, what follows that is the attempt.

    Raises:
        InputError: it cannot be read, or a line of it is no sample.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    samples: dict[str, Sample] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            sample = _sample(f"{file}, line {number}", str(number), line)
            if sample.id in samples:
                raise InputError(f"{file}, line {number}: an earlier line has the id {sample.id!r:.60} too")
            samples[sample.id] = sample
    if not samples:
        raise InputError(f"{file} has no samples")
    return list(samples.values())


def _sample(place: str, number: str, line: str) -> Sample:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: {error}") from None
    fields = record if isinstance(record, dict) else {}
    problem, reasoning = fields.get("problem"), fields.get("reasoning")
    answer, name = fields.get("answer"), fields.get("id", number)
    if not _is_text(problem) or not _is_text(reasoning):
        raise InputError(f"{place}: give texts under 'problem' and 'reasoning'")
    if not isinstance(answer, int | float | None) and not _is_text(answer):
        raise InputError(f"{place}: the answer is {answer!r:.60}; give a text or a number")
    if not isinstance(name, int) and not _is_text(name):
        raise InputError(f"{place}: the id is {name!r:.60}; give a text or a number")
    chain, closed, attempt = reasoning.partition("</think>")
    return Sample(
        id=str(name),
        problem=problem,
        answer=None if answer is None else str(answer),
        chain=chain.strip().removeprefix("<think>").strip(),
        attempt=attempt.strip() if closed else "",
    )


def _is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text, not blank, that a tokenizer takes: without lone surrogates."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= char <= "\udfff" for char in value)
