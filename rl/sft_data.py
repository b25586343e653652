"""Rows for supervised fine-tuning: from files of traces, or from Countdown's teacher."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parallel_reason import InputError, SpawnJoin, Trace, layout, read_traces
from parallel_reason.tasks.countdown import Key, draw
from parallel_reason.tasks.countdown import tokenizer as countdown_tokenizer
from rl.rows import pack
from rl.teacher import Teacher


def read_training_traces(files: Sequence[Path], dialect: str, vocabulary: int) -> list[Trace]:
    """The traces of files, checked against what is trained.

    Args:
        dialect: which all of them are of.
        vocabulary: token ids run below it.

    Raises:
        InputError: a file cannot be read, holds no traces, or traces of another dialect or tokenizer.
    """
    traces = [trace for file in files for trace in read_traces(file)]
    if not traces:
        raise InputError(f"there is no trace in {', '.join(map(str, files))}")
    for number, trace in enumerate(traces):
        if trace.dialect != dialect:
            raise InputError(f"trace {number} is of dialect {trace.dialect!r}; {dialect!r} is trained")
        largest = max(layout(trace).ids, default=0)
        if largest >= vocabulary:
            raise InputError(
                f"trace {number} has token {largest}, outside the model's vocabulary of {vocabulary}: it was made with "
                "another tokenizer"
            )
    return traces


def rows_of_files(files: Sequence[Path], dialect: str, vocabulary: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows without end, the traces in another order in every epoch; the same for the same seed.

    Raises:
        InputError: as `read_training_traces`.
    """
    rows = [pack(trace) for trace in read_training_traces(files, dialect, vocabulary)]
    for epoch in itertools.count():
        yield from random.Random(f"{seed} {epoch}").sample(rows, len(rows))


def rows_of_teacher(
    seed: int,
    children: int,
    error_rate: float,
    hard_negatives_after: int,
    excluded: frozenset[Key],
    least_spawned: float = 1.0,
) -> Iterator[dict[str, Any]]:
    """Rows of Countdown traces without end, the same for the same seed.

    Args:
        children, error_rate, least_spawned: as in `Teacher`.
        hard_negatives_after: how many rows come before those with hard negatives.
        excluded: keys of problems that are left out.
    """
    tokenizer = countdown_tokenizer()
    teacher = Teacher(
        SpawnJoin.bind(tokenizer), tokenizer.get_vocab(), children, error_rate, least_spawned=least_spawned
    )
    given = 0
    for number in itertools.count():
        rng = random.Random(f"train {seed} {number}")
        problem = draw(rng)
        if problem.key not in excluded:
            yield pack(replace(teacher, hard_negatives=given >= hard_negatives_after).trace(problem, rng))
            given += 1
