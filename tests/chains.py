"""Text without a model, for fuzzing: a scripted engine that follows a dialect's Markov chain, spoilt at random."""

import random

from benchmarks.grammars import CHAINS, read
from parallel_reason.engines.scripted import ScriptedEngine

LONGEST = 40  # tokens of a step of a chain, at most


def chain_engine(tokenizer, dialect, seed, spoil=0.03, **options):
    """Samples what may follow the last tokens or, with probability ``spoil``, any token at all.

    A thread's tokens depend on the seed, its label and its context, and not on what else runs.
    """

    def ids(text):
        return tokenizer.encode(text, add_special_tokens=False)

    follows = {}
    for first, then, weight in map(read, CHAINS[dialect].split("|")):
        words, weights = follows.setdefault(tuple(ids(first)), ([], []))
        words.append(ids(then))
        weights.append(weight)

    def next_tokens(request, sampled):
        rng = random.Random(f"{seed} {request.label} {request.first_draw + len(sampled)}")
        tail = (request.ids[-LONGEST:] + sampled)[-LONGEST:]
        found = next((tuple(tail[-size:]) for size in range(1, LONGEST) if tuple(tail[-size:]) in follows), None)
        if found is None or rng.random() < spoil:
            return [rng.randrange(len(tokenizer))]
        return rng.choices(*follows[found])[0]

    return ScriptedEngine(tokenizer, next_tokens, **options)
