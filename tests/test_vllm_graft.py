"""Grafts on vLLM, request by request: against transformers, under pressure, after cancels and resets, and by count."""

import asyncio
import gc
import random

import numpy as np
import pytest
import torch
import transformers

from parallel_reason import SamplingParams
from parallel_reason.engines.base import Decode
from parallel_reason.engines.vllm import VllmEngine
from parallel_reason.errors import EngineError, InputError
from tests.test_torch_engine import WORDS, build

BLOCKS = 40  # of 32 tokens


def words(seed, count):
    return np.random.default_rng(seed).integers(1, len(WORDS), count).tolist()


def ask(name, ids, tokens, *, temperature=0.0, seed=None, **options):
    return Decode(name, list(ids), tokens, frozenset(), SamplingParams(temperature=temperature), seed=seed, **options)


class House:
    """An engine on an event loop of its own, and the same model under plain transformers."""

    def __init__(self, folder, **options):
        self.runner = asyncio.Runner()
        self.run = self.runner.run
        self.engine = self.run(VllmEngine.start(folder, graft=True, **options))
        self.plain = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self.number = 0

    def name(self):
        self.number += 1
        return str(self.number)

    def check(self, ids, decoded, positions=None, mask=None):
        """What was sampled has the log-probs that transformers gives it."""
        every = ids + decoded.ids
        count = len(every)
        seen = torch.ones(count, count, dtype=torch.bool).tril()
        if mask is not None:
            seen[: len(ids), : len(ids)] &= mask
        places = [*positions, *range(positions[-1] + 1, positions[-1] + 1 + len(decoded.ids))] if positions else None
        with torch.no_grad():
            logits = self.plain(
                input_ids=torch.tensor([every]),
                position_ids=torch.tensor([places or list(range(count))]),
                attention_mask=torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None],
                use_cache=False,
            ).logits[0]
        logprobs = logits[len(ids) - 1 : -1].log_softmax(-1)
        chosen = logprobs.gather(1, torch.tensor(decoded.ids)[:, None])[:, 0]
        np.testing.assert_allclose(decoded.logprobs, chosen, atol=1e-4)

    async def family(self, prompt, lengths, seed, glue=(7, 8)):
        """A parent, children that are sampled side by side, and all that a join of them is made from.

        Returns:
            KV to release; and ids, positions, mask and held KV of the join.
        """
        generate = self.engine.generate
        parent = await generate(ask(self.name(), prompt, 0, keep=True))
        sampled = await asyncio.gather(*(
            generate(ask(
                self.name(), [*prompt, 1 + n], length, temperature=1.0, seed=seed + n, held=(parent.kv,), keep=True
            ))
            for n, length in enumerate(lengths)
        ))  # fmt: skip
        whole = await asyncio.gather(*(
            generate(ask(self.name(), [*prompt, 1 + n, *child.ids], 0, held=(child.kv,), keep=True))
            for n, child in enumerate(sampled)
        ))  # fmt: skip
        for n, child in enumerate(sampled):
            self.check([*prompt, 1 + n], child)
            child.kv.release()
        begin, ids, positions = len(prompt), list(prompt), list(range(len(prompt)))
        parts, own = [parent.kv[:begin]], []
        for n, (child, kv) in enumerate(zip(sampled, whole, strict=True)):
            ids += [1 + n, *child.ids]
            positions += range(begin, begin + 1 + len(child.ids))
            own += [n] * (1 + len(child.ids))
            parts.append(kv.kv[begin:])
            kv.kv.release()
        parent.kv.release()
        last = max(positions)
        ids += glue
        positions += range(last + 1, last + 1 + len(glue))
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        for one, a in enumerate(own):
            for other, b in enumerate(own):
                if a != b:
                    mask[begin + one, begin + other] = False
        return ids, positions, mask, tuple(parts)

    async def join(self, prompt, lengths, seed, tokens, between=None):
        ids, positions, mask, held = await self.family(prompt, lengths, seed)
        try:
            if between:
                await between()
            joined = await self.engine.generate(
                ask(self.name(), ids, tokens, temperature=1.0, seed=seed, positions=positions, held=held)
            )
        finally:
            for kv in held:
                kv.release()
        self.check(ids, joined, positions, mask)
        assert len(joined.ids) == tokens
        return ids, joined

    def close(self):
        self.run(self.engine.close())
        self.runner.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A model that never ends by itself, in so little memory that a few joins at once do not fit."""
    folder = build("Qwen3", tmp_path_factory.mktemp("endless"), head_dim=32, eos_token_id=len(WORDS) + 1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    house = House(folder, context=640, num_gpu_blocks_override=BLOCKS)
    yield house
    house.close()


@pytest.fixture(autouse=True)
def nothing_is_held_in_the_end(house):
    yield
    assert house.run(house.engine.kv_is_free())
    assert len(house.engine.joins.pins) == 0


def test_forks_and_joins_compute_nothing_again(house):
    async def rounds():
        prompt = words(1, 75)
        parent = await house.engine.generate(ask("parent", prompt, 9, keep=True))
        assert len(parent.kv) in (83, 84)  # the newest token's KV is there if a step ran ahead
        ids = (prompt + parent.ids)[: len(parent.kv)]
        child = await house.engine.generate(ask("child", [*ids, 5], 4, held=(parent.kv,)))
        parent.kv.release()
        assert child.cached_tokens == len(ids)
        house.check([*ids, 5], child)
        joined_ids, joined = await house.join(prompt, (17, 40, 3), 20, 30)
        assert joined.cached_tokens == len(joined_ids) - 2
        return joined_ids

    house.run(rounds())


def test_plain_requests_never_see_what_was_grafted(house):
    async def both():
        prompt = words(2, 64)
        await house.engine.generate(ask("before", words(2, 100), 1))
        ids, joined = await house.join(prompt, (45, 31), 50, 60)
        whole = ids + joined.ids
        plain = await house.engine.generate(ask("plain", whole, 12))
        house.check(whole, plain)
        assert plain.cached_tokens <= len(prompt) + 46
        return plain

    house.run(both())


def test_pins_that_a_reset_took_are_computed_again(house):
    async def reset():
        await house.engine.llm.reset_prefix_cache(reset_connector=True)

    before = house.engine.joins.repeated
    house.run(house.join(words(3, 70), (20, 37), 70, 20, between=reset))
    assert house.engine.joins.repeated > before


def test_joins_that_do_not_fit_side_by_side_are_preempted_and_still_exact(house):
    async def crowd():
        await asyncio.gather(*(house.join(words(n, 90), (60, 61, 62), 100 + 10 * n, 150) for n in range(8)))

    house.run(crowd())


def test_a_join_that_cannot_fit_beside_its_children_says_so(house):
    async def huge():
        with pytest.raises(EngineError, match="out of KV memory"):
            await house.join(words(4, 20), (80,) * 7, 40, 4)

    house.run(huge())


@pytest.mark.parametrize("seed", range(4))
def test_aborts_and_cancels_leave_nothing_behind(house, seed):
    dice = random.Random(seed)

    async def one(n):
        await asyncio.sleep(dice.random() * 0.2)
        await house.join(words(n, 40), (30, 20), 10 * n, 40)

    async def chaos():
        tasks = [asyncio.create_task(one(n)) for n in range(8)]
        for task in dice.sample(tasks, 6):
            await asyncio.sleep(dice.random() * 0.1)
            if dice.random() < 0.5:
                task.cancel()
            else:
                for name in list(house.engine._live):
                    if dice.random() < 0.3:
                        await house.engine.abort(name)
        await asyncio.gather(*tasks, return_exceptions=True)

    house.run(chaos())
    gc.collect()  # what a cancelled task held goes with it


def test_what_cannot_be_grafted_is_refused(house):
    async def refuse():
        kv = (await house.engine.generate(ask("kept", words(5, 40), 0, keep=True))).kv
        assert len(kv) == 40
        two = kv[:20], kv[10:30]
        with pytest.raises(InputError, match="at least one id"):
            await house.engine.generate(ask("all", words(5, 40), 1, held=two))
        with pytest.raises(InputError, match="40 tokens, but has 20 ids"):
            await house.engine.generate(ask("short", words(5, 20), 1, held=(kv,)))
        again = await house.engine.generate(ask("again", words(5, 40), 3, held=(kv,)))
        house.check(words(5, 40), again)
        for one in (kv, *two):
            one.release()
            one.release()
        with pytest.raises(InputError, match="released"):
            await house.engine.generate(ask("released", words(5, 41), 1, held=(kv,)))

    house.run(refuse())
