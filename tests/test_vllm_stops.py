"""Stop texts on vLLM, over tokens that are single bytes: only sampled text ends a request.

Prompts quote every stop text and end within a character. What a request samples is held to the whole text, decoded
anew after every token.
"""

import asyncio
import random

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from parallel_reason.errors import EngineError
from tests.house import ask, preemptions
from tests.joining import Joining
from tests.letters import build_endless
from tests.other_weights import other_weights

SMILE = "😀".encode()
BYTES = [*b"<P>a", *SMILE]
STOPS = ("<P>", "PPa", "😀", "a<a")
QUOTES = [BYTES.index(byte) for byte in "<P>a<a😀PPa".encode()]
WITHIN = [BYTES.index(byte) for byte in SMILE[:2]]
NEARLY_EVEN = {"head_dim": 32, "initializer_range": 0.08}  # a random model that samples every stop text
BLOCKS = 36  # of 32 tokens


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A model that never ends by itself, in so little memory that a few joins at once do not fit."""
    folder = build_endless("Qwen3", tmp_path_factory.mktemp("bytes"), **NEARLY_EVEN, vocab_size=len(BYTES))
    core = Tokenizer(models.BPE({bytes_to_unicode()[byte]: n for n, byte in enumerate(BYTES)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(folder)
    house = Joining(folder, context=640, num_gpu_blocks_override=BLOCKS, disable_log_stats=False)
    yield house
    house.close()


@pytest.fixture(autouse=True)
def nothing_is_held_in_the_end(house):
    yield
    assert house.engine._closed or house.run(house.engine.kv_is_free())


def prompt(seed, count):
    """Tokens at random, quotes of all stop texts, and the beginning of a character."""
    return [*random.Random(seed).choices(range(len(BYTES)), k=count), *QUOTES, *WITHIN]


def stop_of(house, ids):
    """How many of ``ids`` come up to the end of the first stop text; None if there is none."""
    texts = (house.engine.tokenizer.decode(ids[:count]) for count in range(1, len(ids) + 1))
    return next((count for count, text in enumerate(texts, 1) if any(stop in text for stop in STOPS)), None)


def stopped(house, output, tokens):
    """Whether an output ends at its first stop text; it must end there, or after so many ``tokens``."""
    place = stop_of(house, output.ids)
    assert output.finish_reason == ("length" if place is None else "stop")
    assert len(output.ids) == (tokens if place is None else place)
    return place is not None


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_ends_at_the_first_stop_text_it_samples(house, stream):
    requests = [
        ask(f"{n}", prompt(n, 20), 150, temperature=1.5, seed=n, stop_texts=STOPS, stream=stream) for n in range(30)
    ]
    outputs = house.all(*requests)
    for request, output in zip(requests, outputs, strict=True):
        house.check(request.ids, output, drawn=True)
    assert 0 < sum(stopped(house, output, 150) for output in outputs) < 30


def test_kv_after_a_stop_text_is_that_of_all_tokens_before_the_last(house):
    async def follow():
        ids = prompt(1, 40)
        output = await house.draw(ids, 500, 3, stop_texts=STOPS, keep_kv=True)
        assert stopped(house, output, 500)
        seen = ids + output.ids
        assert len(output.kv) == len(seen) - 1
        after = await house.draw([*seen, 1], 12, held=(output.kv,), positions=[*range(len(seen) + 1)])
        assert after.cached_tokens == len(seen) - 1
        output.kv.release()

    house.run(follow())


def test_stop_texts_under_pressure_and_with_lost_pins(house):
    async def crowd():
        joins = (house.join(prompt(n, 60), (70, 71, 72), 100 + 10 * n, 150, stop_texts=STOPS) for n in range(8))
        return [output for _, output in await asyncio.gather(*joins)]

    before, repeated = preemptions(), house.engine.graft_client.repeated
    ends = [stopped(house, output, 150) for output in house.run(crowd())]
    assert any(ends)
    assert preemptions() > before
    assert house.engine.graft_client.repeated > repeated


def test_stop_texts_over_an_update_of_weights(house, tmp_path):
    """The join loses its pins in mid-run and is repeated: what it sampled before is part of its prompt then."""
    old, new = house.plain, other_weights(house.engine.model, house.plain, tmp_path)

    async def update(folder):
        async def join(seed):
            ids, positions, _, held = await house.family(prompt(seed, 60), (20, 21), seed)
            request = ask(
                house.name(), ids, 300, temperature=1.5, seed=seed, stop_texts=STOPS, positions=positions, held=held
            )
            output = await house.engine.generate(request, lambda delta: sampled.append(request.id))
            for kv in held:
                kv.release()
            return output

        sampled = []
        plain = [ask(f"{folder} {n}", prompt(n, 20), 300, temperature=1.5, seed=n, stop_texts=STOPS) for n in range(3)]
        tasks = [
            *(asyncio.create_task(house.engine.generate(request, lambda delta: None)) for request in plain),
            *(asyncio.create_task(join(seed)) for seed in range(2)),
        ]
        while len(set(sampled)) < 2 or len(sampled) < 20:
            await asyncio.sleep(0.001)
        await house.engine.update_weights(folder)
        return await asyncio.gather(*tasks)

    repeated = house.engine.graft_client.repeated
    outputs = house.run(update(str(tmp_path)))
    house.plain = new
    outputs += house.run(update(house.engine.model))
    house.plain = old
    assert house.engine.graft_client.repeated > repeated
    assert any(len(set(output.policy_versions)) == 2 for output in outputs)
    ends = [stopped(house, output, 300) for output in outputs]
    assert any(ends)


def test_closing_fails_what_runs_and_deletes_the_log(house):
    """The last test, as the engine is that of all."""
    log = house.engine._log

    async def close():
        tasks = [asyncio.create_task(house.engine.generate(ask(f"{n}", [1, 2], 600))) for n in range(3)]
        await asyncio.sleep(0.1)
        await house.engine.close()
        return await asyncio.gather(*tasks, house.engine.generate(ask("late", [1], 1)), return_exceptions=True)

    assert log.exists()
    assert [repr(end) for end in house.run(close())] == [repr(EngineError("engine 'vllm' was closed"))] * 4
    assert not log.exists()
