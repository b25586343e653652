"""A row with traces of every dialect, for attention over a layout."""

import asyncio
import dataclasses

import numpy as np

from benchmarks.grammars import PROMPTS, tokenizer_of
from parallel_reason import Limits, Session
from parallel_reason.dialects import bind
from parallel_reason.trace import layout
from tests.cases import CASES, dialect_of
from tests.chains import chain_engine


def written(case, seed):
    """A row of a trace that follows a dialect's grammar, and now and then breaks it."""
    tokenizer = tokenizer_of([dialect_of(case)])
    session = Session(chain_engine(tokenizer, dialect_of(case), seed), bind(dialect_of(case), tokenizer, **CASES[case]))
    prompt = tokenizer.encode(PROMPTS.get(dialect_of(case), "ab"))
    [trace] = asyncio.run(session.run(prompt, limits=Limits(depth=3, children=4, tokens=200)))
    return layout(trace)


def packed(rows):
    """Rows one after the other in one, as far as masks need it."""
    segments, start = [], 0
    for row in rows:
        segments += [
            dataclasses.replace(
                one,
                start=one.start + start,
                stop=one.stop + start,
                visible=tuple((first + start, last + start) for first, last in one.visible),
            )
            for one in row.segments
        ]
        start += len(row.ids)
    return dataclasses.replace(rows[0], ids=np.concatenate([row.ids for row in rows]), segments=tuple(segments))


def row_of_all_dialects():
    return packed([written(case, seed) for case in CASES for seed in range(2)])
