"""The openai engine against fake servers: what it sends, and what it makes of answers that no vLLM gives every day."""

import asyncio
import json
import shutil
import time

import pytest

from parallel_reason import ParallelLLM
from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.openai.engine import OpenAIEngine
from parallel_reason.engines.openai.event_stream import EventStream
from parallel_reason.errors import EngineError, InputError
from parallel_reason.sampling import SamplingParams
from tests.fake_server import DONE, FakeServer, Reply, answering, connected, event, request, whole
from tests.letters import byte_tokenizer

DRAWN = SamplingParams(temperature=0.8, top_p=0.9, top_k=5, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer with a token a byte, which is its id."""
    folder = str(tmp_path_factory.mktemp("bytes"))
    byte_tokenizer().save_pretrained(folder)
    return folder


# What a model may write: all that `str.splitlines` splits at, unescaped as pydantic writes them, or escaped.
LINE_ENDS = "a\u2028b\u2029c\u0085d\x0ce\x0bf\x1cg\x1dh\x1ei\nj\rk\r\nl"


def test_line_separators_in_what_a_model_writes_do_not_end_a_line(folder):
    ids = LINE_ENDS.encode()
    with answering(folder, whole(*(event(token, text=LINE_ENDS) for token in ids))) as (engine, run, _):
        output = run(engine.generate(request(tokens=len(ids))))
    assert (bytes(output.ids), output.finish_reason) == (ids, "length")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_events_are_split_at_the_three_line_ends_however_the_bytes_arrive(end, size):
    data = f'{{"text": "{LINE_ENDS.splitlines()}\u2028\u0085\x0c"}}'.encode()
    lines = [b": a comment", b"id: 1", b"data: " + data, b"", b"data:two", b"data:  lines", b"", b"", b"data: cut off"]
    sent = end.join(lines)
    events = EventStream()
    parts = [sent[start : start + size] for start in range(0, len(sent), size)]
    assert [found for part in parts for found in events.add(part)] == [data, b"two\n lines"]


def test_line_separators_in_metrics_do_not_end_a_line(folder):
    lines = '# HELP x\nvllm:kv_cache_usage_perc{model_name="a\u2028vllm:kv_cache_usage_perc b} c"} 0.0 17\n'
    with answering(folder) as (engine, run, server):
        server.metrics = Reply(200, "text/plain", lines)
        assert run(engine.kv_is_free())


def test_a_stop_text_in_sampled_text_ends_a_request_and_closes_its_connection(folder):
    def long():
        yield event(*b"x</P")
        for _ in range(500):
            yield event(*b">yz")
            time.sleep(0.01)
        yield event(finish="length") + DONE

    with answering(folder, Reply(body=long())) as (engine, run, server):
        seen = []
        prompt = "a</P>😀".encode()[:-1]
        output = run(engine.generate(request(stop_texts=("</P>",)), lambda delta: seen.extend(delta.ids)))
        assert server.cut.wait(30)
        assert run(engine.kv_is_free())
        run(engine.generate(EngineRequest("cut", list(prompt), 9, stop_texts=("</P>", "x"))))
    assert bytes(output.ids) == bytes(seen) == b"x</P>"
    assert len(output.logprobs) == len(output.policy_versions) == 5
    assert (output.finish_reason, output.prefilled_tokens, output.cached_tokens) == ("stop", 2, None)
    assert not any({"stop", "include_stop_str_in_output"} & body.keys() for body in server.bodies)
    assert {body["stream_interval"] for body in server.bodies} == {1}


def test_a_stop_text_in_the_last_chunk_is_a_stop_and_its_counts_are_read(folder):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 1}}}\n\n'
    reply = Reply(body=event(*b"ab!c", finish="length") + usage + DONE)
    with answering(folder, reply) as (engine, run, _):
        output = run(engine.generate(request(tokens=4, stop_texts=("b!",))))
    assert (bytes(output.ids), output.finish_reason, output.cached_tokens) == (b"ab!", "stop", 1)


def test_top_log_probs_are_the_most_likely_tokens_by_id(folder):
    tops = [{"token_id:7": -3.0, "token_id:5": -1.0, "token_id:6": -2.0}, {"token_id:9": -0.5, "token_id:7": -1.5}]
    logprobs = {"token_logprobs": [-3.0, -1.5], "top_logprobs": tops}
    with answering(folder, whole(event(7, 7, logprobs=logprobs))) as (engine, run, server):
        output = run(engine.generate(request(sampling=SamplingParams(logprobs=2))))
    assert output.top_logprobs == [{5: -1.0, 6: -2.0}, {9: -0.5, 7: -1.5}]
    assert output.logprobs == [-3.0, -1.5]
    assert (server.bodies[0]["logprobs"], server.bodies[0]["return_tokens_as_token_ids"]) == (2, True)


@pytest.mark.parametrize(
    ("logprobs", "error"),
    [
        ({"token_logprobs": [-1.0, None, -2.0]}, "returns null as the log-prob of token 98"),
        ({"token_logprobs": [-1.0, -2.0]}, "returns 2 log-probs for 3 tokens"),
        (None, "returns no log-probs for logprobs=0"),
    ],
)
def test_a_log_prob_that_is_missing_is_an_error_and_shifts_no_other(folder, logprobs, error):
    with (
        answering(folder, whole(event(*b"abc", logprobs=logprobs))) as (engine, run, server),
        pytest.raises(EngineError, match=f"^engine 'openai': {server.url} {error}$"),
    ):
        run(engine.generate(request()))


@pytest.mark.parametrize("tops", [[None, None], [{"token_id:1": -1.0}], [{"token_id:1": -1.0}, {"a": -1.0}], []])
def test_top_log_probs_that_are_missing_are_an_error(folder, tops):
    logprobs = {"token_logprobs": [-1.0, -1.0], "top_logprobs": tops}
    with (
        answering(folder, whole(event(1, 1, logprobs=logprobs))) as (engine, run, _),
        pytest.raises(EngineError, match="top_logprobs"),
    ):
        run(engine.generate(request(sampling=SamplingParams(logprobs=1))))


def test_only_the_first_token_of_a_scored_prompt_has_no_log_prob(folder):
    scored = [
        Reply(body=event(1, logprobs={"token_logprobs": values}, finish="length") + DONE)
        for values in ([None, -1.0, -2.0], [None, None, -2.0], [None, -1.0])
    ]
    with answering(folder, *scored) as (engine, run, _):
        assert run(engine.score([97, 98, 99])) == [-1.0, -2.0]
        with pytest.raises(EngineError, match="returns null as the log-prob of token 98"):
            run(engine.score([97, 98, 99]))
        with pytest.raises(EngineError, match="returns 2 log-probs for 3 tokens"):
            run(engine.score([97, 98, 99]))


def test_counts_say_what_the_server_did(folder):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 2}}\n\n'
    cached = b'data: {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 0}}}\n\n'
    end = event(1, finish="length")
    replies = [Reply(body=end + more + DONE) for more in (b"", usage, cached)]
    with answering(folder, *replies) as (engine, run, _):
        outputs = [run(engine.generate(request())) for _ in replies]
    assert [output.cached_tokens for output in outputs] == [None, None, 0]
    assert {output.prefilled_tokens for output in outputs} == {2}


def hang(*first):
    """A body that sends comments after its first events, and never ends its last."""
    yield from first
    for _ in range(500):
        yield b": waits\n\n"
        time.sleep(0.01)


def test_an_abort_ends_all_requests_at_once_and_before_the_first_token_nothing_was_prefilled(folder):
    replies = [Reply(body=hang(*first)) for first in ([], [event(97)], [event(97)])]
    with answering(folder, *replies) as (engine, run, _):

        async def cut():
            seen = []
            names = ["none", "one", "two"]
            runs = []
            for name in names:
                runs.append(asyncio.create_task(engine.generate(EngineRequest(name, [1, 2], 9), seen.append)))
                await asyncio.sleep(0.3)  # each gets its own reply
            while len(seen) < 2:
                await asyncio.sleep(0.01)
            await engine.abort([*names, "unknown"])
            await engine.abort(names)
            return await asyncio.gather(*runs)

        outputs = run(cut())
        assert run(engine.kv_is_free())
    assert [(output.ids, output.prefilled_tokens, output.cached_tokens) for output in outputs] == [
        ([], 0, 0),
        ([97], 2, None),
        ([97], 2, None),
    ]
    assert {output.finish_reason for output in outputs} == {"abort"}


def test_the_seed_of_a_request_depends_on_where_the_thread_stands(folder):
    with answering(folder) as (engine, run, server):
        for seed, first_draw in ((1, 0), (1, 0), (1, 5), (2, 0), (None, 0)):
            run(engine.generate(request(sampling=DRAWN, seed=seed, first_draw=first_draw)))
        run(engine.generate(request(seed=1)))
    first, again, continued, other, none, greedy = (body["seed"] for body in server.bodies)
    assert first == again
    assert len({first, continued, other}) == 3
    assert max(first, continued, other) < 2**32
    assert none is greedy is None


def test_with_our_sampler_on_the_server_the_noise_is_ours(folder):
    with answering(folder, seeded_sampler=True) as (engine, run, server):
        run(engine.generate(request(sampling=DRAWN, seed=2**60, first_draw=7)))
        run(engine.generate(request(sampling=DRAWN)))
    seeded, free = server.bodies
    assert json.loads(seeded["vllm_xargs"]["seeded_draw"]) == {
        "seed": 2**60,
        "first_draw": 7,
        "sampling": {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "seed": 1},
    }
    assert (seeded["temperature"], seeded["top_p"], seeded["top_k"], seeded["seed"]) == (0, 1, 0, None)
    assert (free["temperature"], free["top_p"], free["top_k"], "vllm_xargs" in free) == (0.8, 0.9, 5, False)


def test_what_a_server_does_token_by_token_is_asked_of_it_by_name(folder):
    rules = SamplingParams(
        min_p=0.1,
        repetition_penalty=1.5,
        logit_bias={7: -2.0},
        allowed_token_ids=[7, 9],
        ignore_eos=True,
        lora="french",
    )
    with answering(folder) as (engine, run, server):
        run(engine.generate(request(sampling=rules)))
    body = server.bodies[0]
    assert {name: body[name] for name in ("min_p", "repetition_penalty", "logit_bias", "allowed_token_ids")} == {
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "logit_bias": {"7": -2.0},
        "allowed_token_ids": [7, 9],
    }
    assert (body["ignore_eos"], body["model"]) == (True, "french")


@pytest.mark.parametrize(
    "field", [{"presence_penalty": 1.0}, {"frequency_penalty": 1.0}, {"bad_words": ["a"]}, {"min_tokens": 2},
              {"structured_outputs": {"regex": "a"}}],
)  # fmt: skip
def test_what_a_server_counts_over_one_request_is_refused_unless_our_sampler_runs_there(folder, field):
    sampling = SamplingParams(**field)
    with answering(folder) as (engine, run, server):
        with pytest.raises(InputError, match=f"engine 'openai' cannot do {next(iter(field))}=.*with seeded_sampler"):
            run(engine.generate(request(sampling=sampling)))
        assert not server.bodies
    with answering(folder, seeded_sampler=True) as (engine, run, server):
        run(engine.generate(request(sampling=sampling)))
    assert next(iter(field)) in json.loads(server.bodies[0]["vllm_xargs"]["seeded_draw"])["sampling"]


def tokenizer_and(folder, tmp_path, **files):
    """The folder of a tokenizer with these JSON files beside it."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(tmp_path)


ONE, TWO = 1, 2  # ends of text


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({}, set()),
        ({"generation_config": {"eos_token_id": [ONE, TWO]}, "config": {"eos_token_id": 3}}, {ONE, TWO}),
        ({"generation_config": {}, "config": {"model_type": "qwen3", "eos_token_id": ONE}}, {ONE}),
        ({"generation_config": {}, "config": {"model_type": "gemma3", "text_config": {"eos_token_id": [TWO]}}}, {TWO}),
        ({"generation_config": {"eos_token_id": [ONE, "</s>", 256, -1]}}, {ONE}),
        ({"generation_config": "{", "config": {"eos_token_id": TWO}}, {TWO}),
        ({"generation_config": "[]"}, set()),
    ],
)
def test_a_model_ends_at_every_end_of_text_that_its_configs_name(folder, tmp_path, files, ends):
    place = tokenizer_and(folder, tmp_path, **files)
    with answering(place) as (engine, run, server):
        run(engine.generate(request(stop_ids=frozenset({9}))))
        run(engine.generate(request(stop_ids=frozenset({9}), sampling=SamplingParams(ignore_eos=True))))
        run(engine.generate(request(stop_ids=frozenset({9}), sampling=DRAWN)))
    assert engine.eos_ids == ends
    assert [body["stop_token_ids"] for body in server.bodies] == [[*sorted(ends), 9], [9], [*sorted(ends), 9]]


def test_ends_of_text_may_be_given_and_our_sampler_is_sent_them(folder, tmp_path):
    place = tokenizer_and(folder, tmp_path, generation_config={"eos_token_id": [ONE]})
    with answering(place, eos_ids=[TWO], seeded_sampler=True) as (engine, run, server):
        run(engine.generate(request(sampling=SamplingParams(min_tokens=3))))
    assert TWO in server.bodies[0]["stop_token_ids"]
    assert ONE not in engine.eos_ids
    assert TWO in json.loads(server.bodies[0]["vllm_xargs"]["seeded_draw"])["ends"]
    with (
        pytest.raises(InputError, match="eos_ids: token id 256 is not in the vocabulary of 256"),
        answering(place, eos_ids=[256]),
    ):
        pass


def test_no_new_tokens_are_asked_for_and_none_come(folder):
    with answering(folder) as (engine, run, server):
        output = run(engine.generate(request(tokens=0)))
    assert (output.ids, output.finish_reason, output.prefilled_tokens) == ([], "length", 2)
    assert server.bodies[0]["max_tokens"] == 1


def test_requests_of_a_trace_go_to_one_server_whatever_their_ids(folder):
    with FakeServer() as one, FakeServer() as two, connected(base_url=[one.url, two.url], tokenizer=folder) as pair:
        engine, run = pair
        one.bodies.clear()
        two.bodies.clear()
        for number in range(64):
            for part in range(2):
                made = EngineRequest(f"{part}/{number}", [number], 1, trace=f"trace {number}")
                run(engine.generate(made))
        met = [[body["prompt"][0] for body in server.bodies] for server in (one, two)]
    assert all(met)
    assert not set(met[0]) & set(met[1])


def test_after_close_an_engine_says_that_it_is_closed(folder):
    with answering(folder) as (engine, run, _):
        run(engine.close())
        with pytest.raises(EngineError, match="engine 'openai' is closed"):
            run(engine.generate(request()))


def test_requests_that_run_when_an_engine_is_closed_say_that_it_is_closed(folder):
    with answering(folder, Reply(body=hang(event(1)))) as (engine, run, _):

        async def close_early():
            started = asyncio.Event()
            task = asyncio.create_task(engine.generate(request(), lambda delta: started.set()))
            await started.wait()
            await engine.close()
            with pytest.raises(EngineError, match="engine 'openai' is closed"):
                await asyncio.wait_for(task, 3)

        run(close_early())


def test_the_weights_of_servers_cannot_be_changed(folder):
    with answering(folder) as (engine, run, _), pytest.raises(EngineError, match="cannot change the weights"):
        run(engine.update_weights(folder))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"base_url": "localhost:8000"}, "base_url 'localhost:8000' is no address"),
        ({"base_url": []}, "base_url is empty"),
        ({"base_url": "http://localhost:1", "timeout_s": 0}, "a time-out must be above 0 s, not 0"),
        ({"base_url": "http://localhost:1", "retries": -1}, "retries and busy_timeout_s must be at least 0, not -1"),
        ({"base_url": "http://localhost:1", "connections": 0}, "connections must be at least 1, not 0"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options, error):
    with pytest.raises(InputError, match=error):
        asyncio.run(OpenAIEngine.start(**options))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "missing a required argument: 'base_url'"),
        ({"base_url": "http://localhost:1", "context": 5}, "unexpected keyword argument 'context'"),
    ],
)
def test_an_option_that_the_engine_does_not_have_is_refused(options, error):
    with pytest.raises(InputError, match=error):
        ParallelLLM(engine="openai", **options)
