"""Runs of a dialect on threads that write given texts, and what the threads hold then, as text."""

import asyncio

from benchmarks.grammars import PROMPTS, tokenizer_of
from parallel_reason import Limits, Session, layout
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine

WILD = Limits(depth=3, children=8, forks=6, tokens=1500, tokens_per_thread=60)
ROOMY = Limits(depth=3)
CALL = "<Start Sub Search {} at level 1> Moving to Node #{}\n"
BLOCK = f"<Calling Sub Searches>\n{CALL.format(0, '0,1')}{CALL.format(1, '0,0')}<End Calling Sub Searches>\n<eos>"
OUTLINE = "<Outline>{}: o</Outline>".format
GOAL = "<Parallel><Goal>{}</Goal>".format
PLAN = "<guideline>{}</guideline>".format
WEAVE = "<Parallel><Outlines>{}</Outlines>".format


def run(engine, name, limits=WILD, **options):
    """The trace of a run on a scripted engine, which leaves no KV behind."""
    session = Session(engine, bind(name, engine.tokenizer, **options))
    prompt = engine.tokenizer.encode(PROMPTS.get(name, "ab"), add_special_tokens=False)
    trace = asyncio.run(session.run(prompt, limits=limits))[0]
    assert asyncio.run(engine.kv_is_free())
    assert not trace.errors
    return trace


def scripted(name, texts, limits=ROOMY, tokens=None, **options):
    """The trace of threads that write these texts, by label."""
    engine = ScriptedEngine.from_texts(tokens or tokenizer_of([name]), texts, context=20_000)
    return run(engine, name, limits, **options)


def written(trace, tokens=None):
    """Under every label, what the thread wrote after its prompt: inserts in {}, copies in (), what was taken back in
    []."""
    tokens = tokens or tokenizer_of([trace.dialect])
    marks = {"sampled": "{}", "injected": "{{{}}}", "copied": "({})"}
    texts = {}
    for thread in trace.threads:
        pieces = []  # [ids, form, whether they were taken back]
        for span in thread.spans:
            gone = span.taken_back
            for place in reversed(range(len(pieces))):
                ids, form, back = pieces[place]
                if gone and not back:
                    stay = max(0, len(ids) - gone)
                    pieces[place : place + 1] = [(ids[:stay], form, False), (ids[stay:], form, True)]
                    gone -= len(ids) - stay
            pieces += [(span.ids, marks[span.origin], False)] if span.origin != "prompt" else []
        text = [(form.format(tokens.decode(ids)), back) for ids, form, back in pieces if ids]
        texts[thread.label] = "".join(f"[{piece}]" if back else piece for piece, back in text)
    return texts


def positions(trace):
    """``positions(trace)(tag)``: where the tag stands, every time it does."""
    row, vocabulary = layout(trace), tokenizer_of([trace.dialect]).get_vocab()
    return lambda tag: row.positions[row.ids == vocabulary[tag]].tolist()
