"""Sessions over an engine that writes given texts, for tests of the runtime."""

import asyncio

from benchmarks.grammars import tokenizer_of
from parallel_reason import Session
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine

WORDS = tokenizer_of(["spawn_join", "multiverse"])
FORKS = {
    "0": ["ab<spawn>x<sep>y<sep>z</spawn>", "c<eos>"],
    "0.0": ["aa<return>r</thread>"],
    "0.1": ["b<return>s</thread>"],
    "0.2": ["ccc<return>t</thread>"],
}


def session(texts=FORKS, dialect="spawn_join", delay_s=None, **options):
    engine = ScriptedEngine.from_texts(WORDS, texts, delay_s=delay_s)
    return Session(engine, bind(dialect, WORDS, **options))


def run(over, prompts="Q", **options):
    return asyncio.run(over.run(prompts, **options))


def ids(text):
    return WORDS.encode(text, add_special_tokens=False)
