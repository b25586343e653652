"""Salts and floors of sequences that begin with KV of others, against the most naive model of what KV is.

The KV of a token is its id, its position, and the KV of all that it saw. Two blocks may hash alike only if their tokens
have the same KV, and what lies above the floor must be what computing it in place would give.
"""

import random

import pytest

from parallel_reason.engines.vllm.graft.kv_sources import KVSource, concatenate, cut, length
from parallel_reason.engines.vllm.graft.messages import GraftRequest
from parallel_reason.engines.vllm.graft.request import floor_of, graft_request

BLOCK = 4


class Made:
    """A sequence made at random out of others, and what each of its tokens is."""

    def __init__(self, dice, name, made):
        parts, positions, ids, kv = [], [], [], []
        for _ in range(dice.choice([0, 0, 1, 1, 2, 3]) if made else 0):
            other = dice.choice(made)
            stop = dice.randint(1, len(other.source.ids))
            start = dice.choice([0, 0, len(ids), dice.randint(0, stop)])
            if start < stop:
                parts.append(other.source.slices(start, stop))
                ids += other.source.ids[start:stop]
                positions += other.source.positions[start:stop]
                kv += other.kv[start:stop]
        before = concatenate(parts)
        assert length(before) == len(ids)
        place = dice.choice([len(ids), max(positions, default=-1) + 1])
        for _ in range(dice.randint(1, 9)):
            token = dice.randint(0, 1)
            kv.append(hash((token, place, tuple(kv))))
            ids.append(token)
            positions.append(place)
            place += dice.choice([1] * 9 + [0])
        self.source = KVSource(name, ids, positions, before)
        self.kv = kv
        self.message = graft_request(positions, before, before)

    def blocks(self):
        """Hashes of its blocks as vLLM chains them."""
        chain = None
        for number in range(len(self.kv) // BLOCK):
            start, stop = number * BLOCK, (number + 1) * BLOCK
            salts = tuple(salt for salt in self.message.salts if start <= salt[0] < stop)
            chain = (chain, tuple(self.source.ids[start:stop]), salts)
            yield chain, tuple(self.kv[start:stop])


@pytest.mark.parametrize("seed", range(400))
def test_blocks_that_hash_alike_hold_the_same_kv(seed):
    dice = random.Random(seed)
    made = []
    for number in range(14):
        made.append(Made(dice, str(number), list(made)))
    seen = {}
    for sequence in made:
        for chain, kv in sequence.blocks():
            assert seen.setdefault(chain, kv) == kv


@pytest.mark.parametrize("seed", range(400))
def test_what_lies_above_the_floor_can_be_computed_in_place(seed):
    dice = random.Random(seed)
    made = []
    for number in range(14):
        made.append(Made(dice, str(number), list(made)))
    for sequence in made:
        ids, positions, kv = sequence.source.ids, sequence.source.positions, sequence.kv
        for place in range(sequence.message.floor, len(kv)):
            assert kv[place] == hash((ids[place], positions[place], tuple(kv[:place])))


def test_a_fork_of_plain_text_is_plain_and_its_first_child_stays_where_it_is_in_the_join():
    parent = KVSource("parent", [1] * 10, list(range(10)), ())
    held = parent.slices(0, 10)
    children = [KVSource(f"child {n}", [1] * 10 + [n] * 5, list(range(15)), held) for n in range(3)]
    assert [graft_request(child.positions, held, held).salts for child in children] == [[]] * 3
    grafted = concatenate([held, *(child.slices(10, 15) for child in children)])
    message = graft_request([*range(10), *[*range(10, 15)] * 3, 15], grafted, grafted, "joined")
    assert message.salts == [
        (15, "-5"), (15, "child 1+10"), (20, "-10"), (20, "child 2+10"), (20, "end"), (25, "end")
    ]  # fmt: skip
    assert message.offsets == [(15, 5), (20, 10)]
    assert message.floor == 25 == floor_of(grafted)
    assert floor_of(cut(grafted, 0, 15)) == 0
    assert GraftRequest.read(message.parameters()) == message


def test_a_plain_sequence_needs_nothing():
    assert graft_request([0, 1, 2], (), ()) == GraftRequest()
