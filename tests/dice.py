"""An engine without a model, for fuzzing: it rolls tokens from a dialect's chain, spoilt at random."""

import random
from collections import Counter

from evals.grammars import CHAINS, read
from parallel_reason.engines.base import Capabilities, Decoded
from parallel_reason.memory import Memory
from parallel_reason.text import TextStream


class Dice:
    """Rolls a next token that may follow the last one, or, one time in ``1/spoil``, any token at all."""

    name, model, context = "dice", "dice", 4000
    capabilities = Capabilities(fork=True, graft=False, concurrent=True, update_weights=False)
    memory = Memory(None, 1)

    def __init__(self, tokenizer, dialect, seed, spoil=0.03):
        self.tokenizer = tokenizer
        self.vocabulary = len(tokenizer)
        self.eos_ids = frozenset({tokenizer.eos_token_id})
        self.rng = random.Random(seed)
        self.spoil = spoil
        self.asked, self.sizes = [], []  # label, ids and positions of every request; how many tokens it gave
        self.next = {}
        for first, then, weight in map(read, CHAINS[dialect].split("|")):
            words = self.next.setdefault(tuple(self.ids(first)), ([], []))
            words[0].append(self.ids(then))
            words[1].append(weight)

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)

    def roll(self, context, label):
        """The tokens that come next in a thread."""
        if self.rng.random() >= self.spoil:
            for length in (1, *range(2, 40)):
                if tuple(context[-length:]) in self.next:
                    words, weights = self.next[tuple(context[-length:])]
                    return list(self.rng.choices(words, weights)[0])
        return [self.rng.randrange(self.vocabulary)]

    async def generate(self, request, on_tokens=None):
        self.asked.append((request.id.split("/")[2], list(request.ids), list(request.positions)))
        decoded, text, stream = Decoded(), "", TextStream(self.tokenizer)
        coming = []
        while decoded.reason == "abort":
            coming = coming or self.roll(request.ids + decoded.ids, request.id.split("/")[2])
            token = coming.pop(0)
            decoded.ids.append(token)
            decoded.logprobs.append(0.0)
            text = (text + stream.add([token]))[-60:]
            if token in request.stop_ids | self.eos_ids or any(stop in text for stop in request.stop_texts):
                decoded.reason = "stop"
            elif len(decoded.ids) == request.max_tokens:
                decoded.reason = "length"
        self.sizes.append(len(decoded.ids))
        return decoded

    async def abort(self, request_id):
        pass


class Script(Dice):
    """Says what it is told: under every thread's label, the texts of its requests in turn; then the end of text."""

    def __init__(self, tokenizer, dialect, said):
        super().__init__(tokenizer, dialect, seed=0)
        self.said = {label: list(texts) for label, texts in said.items()}

    async def generate(self, request, on_tokens=None):
        label = request.id.split("/")[2]
        text = self.said[label].pop(0) if self.said.get(label) else "<eos>"
        ids = self.ids(text)
        return Decoded(ids=ids, logprobs=[0.0] * len(ids), reason="stop")


class Replay(Dice):
    """Writes tokens that were written before, under every thread's label, stops as any engine does, and then says the
    end of text; ``ends`` counts how often it had to."""

    def __init__(self, tokenizer, dialect, said):
        super().__init__(tokenizer, dialect, seed=0)
        self.said = {label: list(ids) for label, ids in said.items()}
        self.ends = Counter()

    def roll(self, context, label):
        if self.said.get(label):
            return [self.said[label].pop(0)]
        self.ends[label] += 1
        return [self.tokenizer.eos_token_id]
