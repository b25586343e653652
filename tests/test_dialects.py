"""Every dialect on what models write: well-formed, spoilt, and as text where a tokenizer splits the tags."""

import asyncio
import os

import pytest

from parallel_reason import Limits, SamplingParams
from parallel_reason.controller import Run
from parallel_reason.dialects import OWN, bind
from parallel_reason.layout import layout
from parallel_reason.trace import Trace
from tests.dice import Dice, Script
from tests.grammars import PROMPTS, tokenizer_of

NAMES = [dialect.name for dialect in OWN]
COUNT = 100_000 if os.environ.get("ALL_SEQUENCES") else 1000
WILD = Limits(depth=3, children=8, forks=6, tokens=1500, tokens_per_thread=60)


def run(name, seed, tokens=None, spoil=0.03, limits=WILD, **options):
    tokens = tokens or tokenizer_of([name])
    engine, dialect = Dice(tokens, name, seed, spoil), bind(name, tokens, **options)
    return asyncio.run(Run(engine, dialect, SamplingParams(), limits).trace("", engine.ids(PROMPTS.get(name, "ab"))))


@pytest.mark.parametrize("name", NAMES)
def test_no_sequence_raises_or_loops_and_every_trace_lies_flat(name):
    """With ``ALL_SEQUENCES=1``, a hundred thousand threads a dialect."""
    threads, seed, forks, malformed, joins = 0, 0, 0, 0, 0
    while threads < COUNT:
        trace = run(name, seed, spoil=(0.0, 0.03, 0.3)[seed % 3])
        seed += 1
        threads += len(trace.threads)
        forks += trace.ledger.forks
        malformed += trace.ledger.malformed_forks
        joins += any(fork for thread in trace.threads for fork in thread.forks if fork.at < len(thread.spans))
        assert trace.ledger.sampled_tokens <= 1500
        if seed <= 100:
            row = layout(trace)
            assert len(row.ids) == sum(len(span.ids) for thread in trace.threads for span in thread.spans)
            assert Trace.from_json(trace.to_json()) == trace
    assert forks > COUNT / 50
    assert joins
    assert malformed or name in ("parallel_r1", "parathinker")  # in these nothing can be malformed


def told(name, said, limits=WILD, **options):
    tokens = tokenizer_of([name])
    dialect = bind(name, tokens, **options)
    prompt = PROMPTS.get(name, "Q")
    return asyncio.run(
        Run(Script(tokens, name, said), dialect, SamplingParams(), limits).trace(prompt, tokens.encode(prompt))
    )


def written(name, trace):
    """Under every label, what the thread wrote after its prompt: the controller's text in {}, copies in (), what was
    taken back in []."""
    tokens = tokenizer_of([name])
    marks = {"sampled": "{}", "injected": "{{{}}}", "copied": "({})"}
    texts = {}
    for thread in trace.threads:
        pieces = []  # [ids, form]
        for span in thread.spans:
            back, gone = [], span.drops
            while gone:
                ids, form = pieces.pop()
                cut = max(0, len(ids) - gone)
                back.insert(0, (ids[cut:], f"[{form}]"))
                gone -= len(ids) - cut
                if cut:
                    pieces.append((ids[:cut], form))
                    break
            pieces += [*back, (span.ids, marks[span.origin])] if span.origin != "prompt" else []
        texts[thread.label] = "".join(form.format(tokens.decode(ids)) for ids, form in pieces if ids)
    return texts


def test_multiverse_to_the_letter():
    goal = "<Parallel>\n<Goal>\n<Outline>\n1: p\n</Outline>\n<Outline>\n 2.1 : q\n</Outline>\n</Goal>"
    root = ["a" + goal, "s</Conclusion>\n</Parallel>b<eos>"]
    trace = told("multiverse", {"0": root, "0.0": [" x</Path>"], "0.1": ["yyy</Path>"]})
    assert written("multiverse", trace) == {
        "0": "a" + goal + "{\n}" + "{\n}{<Conclusion>\n}s</Conclusion>\n</Parallel>b<eos>",
        "0.0": "{<Path>\n1:} x</Path>",
        "0.1": "{<Path>\n2.1:}yyy</Path>",
    }
    at = positions("multiverse", trace)
    assert at("<Path>") == [at("</Goal>")[0] + 1] * 2
    assert at("<Conclusion>") == [max(at("</Path>")) + 1]


def positions(name, trace):
    """``positions(name, trace)(tag)``: where the tag stands, every time it does."""
    row, vocabulary = layout(trace), tokenizer_of([name]).get_vocab()
    return lambda tag: row.positions[row.ids == vocabulary[tag]].tolist()
