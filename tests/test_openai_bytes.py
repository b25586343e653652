"""The openai engine against a real `vllm serve` whose tokens are bytes and are drawn by our own sampler."""

from dataclasses import replace

import pytest

from parallel_reason.engines.base import EngineRequest
from parallel_reason.sampling import SamplingParams
from tests import letters
from tests.fake_server import connected
from tests.servers import Serve

SAMPLER = "parallel_reason.engines.vllm.seeded:SeededSampler"
DRAWN = SamplingParams(temperature=1.0)


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory):
    """An engine on a server of a random model that writes bytes, drawn by our own sampler; it never ends by itself."""
    folder = str(tmp_path_factory.mktemp("bytes"))
    letters.build("Qwen3", folder, vocab_size=256, head_dim=32, eos_token_id=999)
    letters.byte_tokenizer().save_pretrained(folder)
    server = Serve(folder, tmp_path_factory.mktemp("log") / "bytes", "--logits-processors", SAMPLER)
    try:
        with connected(base_url=server.ready().url, seeded_sampler=True) as pair:
            yield pair
    finally:
        server.kill()


def test_a_prompt_that_ends_within_a_character_does_not_stop_at_what_it_quotes(bytewise):
    engine, run = bytewise
    prompt = list("write </P> and 😀".encode()[:-2])
    free = EngineRequest("free", prompt, 200, DRAWN, seed=1)
    output = run(engine.generate(free))
    assert (len(output.ids), output.finish_reason) == (200, "length")
    quoted = run(engine.generate(replace(free, id="quoted", stop_texts=("</P>",))))
    assert (quoted.ids, quoted.finish_reason) == (output.ids, "length")

    text = bytes(output.ids)
    ends = next(
        end for end in range(20, 200) if text[end - 2 : end].isalnum() and text.index(text[end - 2 : end]) == end - 2
    )
    stopped = run(engine.generate(replace(free, id="stopped", stop_texts=("</P>", text[ends - 2 : ends].decode()))))
    assert (stopped.ids, stopped.finish_reason) == (output.ids[:ends], "stop")


def test_a_seeded_thread_with_a_long_prompt_is_the_same_however_it_is_cut_into_requests(bytewise):
    engine, run = bytewise
    prompt = [97 + number % 26 for number in range(2_100)]  # more than the server computes in one step
    whole = EngineRequest("whole", prompt, 24, DRAWN, seed=0)
    output = run(engine.generate(whole))
    assert len(output.ids) == 24
    rest = replace(whole, id="rest", ids=prompt + output.ids[:9], max_tokens=15, first_draw=9)
    other = replace(whole, id="other", seed=1)
    assert run(engine.generate(rest)).ids == output.ids[9:]
    assert run(engine.generate(other)).ids != output.ids
