"""The openai engine against fake servers that refuse, cannot be reached or cannot be used."""

import asyncio
import resource
import time
from email.utils import formatdate

import pytest

from parallel_reason import engines
from parallel_reason.engines.base import EngineRequest
from parallel_reason.engines.openai.engine import OpenAIEngine
from parallel_reason.errors import EngineError
from tests.fake_server import DONE, ONE_TOKEN, FakeServer, Reply, answering, connected, event, request, whole

EMBEDDED = str(engines.EMBEDDED)  # its tokenizer is used


def busy(status, after=None):
    return Reply(status, "application/json", '{"error": "not now"}', {} if after is None else {"retry-after": after})


@pytest.fixture
def waits(monkeypatch):
    """The seconds that an engine would wait between its tries; it does not wait them."""
    waits, sleep = [], asyncio.sleep

    async def wait(seconds):
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("parallel_reason.engines.openai.routing.asyncio.sleep", wait)
    return waits


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_refuses_for_a_moment_is_asked_again(waits, status):
    with answering(EMBEDDED, busy(status), busy(status)) as (engine, run, server):
        assert run(engine.generate(request())).ids == [1]
    assert len(server.bodies) == 3
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_when_to_come_again(waits, status):
    replies = [busy(status, after) for after in ("7", "0", "3600", formatdate(time.time() + 30, usegmt=True), "soon")]
    with answering(EMBEDDED, *replies, retries=1) as (engine, run, server):
        assert run(engine.generate(request())).ids == [1]
    assert len(server.bodies) == 6
    assert waits[:3] == [7, 0.5, 60]
    assert 20 < waits[3] <= 30
    assert waits[4] == 8


def test_waiting_for_a_busy_server_ends(waits):
    with (
        answering(EMBEDDED, *[busy(429, "50")] * 9, busy_timeout_s=120) as (engine, run, server),
        pytest.raises(EngineError, match=r"no server answers after 3 tries: .* answers 429 to \S*: not now"),
    ):
        run(engine.generate(request()))
    assert waits == [50, 50]
    assert len(server.bodies) == 3


def test_a_busy_server_is_passed_over_for_another(waits):
    with FakeServer() as one, FakeServer() as two, connected(base_url=[one.url, two.url], tokenizer=EMBEDDED) as pair:
        engine, run = pair
        first = one if engine._servers.order("t")[0].url == one.url else two
        first.replies.append(busy(429, "40"))
        for _ in range(3):
            assert run(engine.generate(EngineRequest("r", [1], 1, trace="t"))).ids == [1]
        assert not waits
        assert len(first.bodies) == 2  # one of them at the start


def test_a_server_that_is_busy_at_the_start_is_asked_again(waits):
    with FakeServer(busy(429, "2"), busy(500)) as server, connected(base_url=server.url, tokenizer=EMBEDDED):
        assert len(server.bodies) == 3
    assert waits == [2, 1]


def test_no_more_connections_are_open_than_may_be():
    open_now, most = [], []

    def slow():
        open_now.append(1)
        most.append(len(open_now))
        time.sleep(0.02)
        open_now.pop()
        yield ONE_TOKEN.body

    with answering(EMBEDDED, *(Reply(body=slow()) for _ in range(40)), connections=3) as (engine, run, server):

        async def all_at_once():
            requests = [EngineRequest(str(number), [1], 1) for number in range(40)]
            return await asyncio.gather(*(engine.generate(one) for one in requests))

        assert [output.ids for output in run(all_at_once())] == [[1]] * 40
    assert max(most) <= 3
    assert len(server.bodies) == 40


def test_when_descriptors_run_out_the_error_says_so(waits):
    with answering(EMBEDDED) as (engine, run, _):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(EngineError, match=r"Too many open files.*ulimit -n.*connections=512"):
                run(engine.generate(request()))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert run(engine.generate(request())).ids == [1]


def test_when_nobody_listens_the_error_says_so(waits):
    with answering(EMBEDDED) as (engine, run, server):
        server.shutdown()
        server.server_close()
        with pytest.raises(
            EngineError, match=r"no server answers after 3 tries: .* does not answer .*Connect call fail"
        ):
            run(engine.generate(request()))


JSON = "application/json"


@pytest.mark.parametrize(
    ("models", "reply", "error"),
    [
        (None, Reply(400, JSON, '{"error": {"message": "prompt must be\\na string"}}'),
         "answers 400 to /v1/completions: prompt must be a string; engine 'openai' needs token ids"),
        (None, whole(event(token_ids=None)), "returns no token ids for return_token_ids=true"),
        (None, whole(event(1, logprobs=None)), "returns no log-probs for logprobs=0"),
        (None, whole(event()), "returned 0 token ids"),
        (None, Reply(body=event(1) + DONE), "ended its answer without a finish_reason"),
        (None, whole(event(1), finish="error"), "ended a request: error"),
        (None, Reply(body='data: {"error": {"message": "out of memory"}}\n\n'), "failed: out of memory"),
        (None, Reply(body="data: hello\n\n"), "streams something else than completions"),
        (None, Reply(200, JSON, "{}"), "answers application/json to stream=true"),
        (None, Reply(404, "text/html", "<html>"), "answers 404 to /v1/completions: <html>"),
        (None, Reply(body=": nothing more\n\n"), "broke off its answer"),
        (None, Reply(body=b"data: [DO"), "broke off its answer"),
        (Reply(200, JSON, '{"data": [{"id": "other"}]}'), None, "does not tell max_model_len"),
        (Reply(200, JSON, '{"data": [{"id": "another"}]}'), None, "serves 'another', not 'other'"),
        (Reply(200, JSON, '{"data": []}'), None, "serves no model, not 'other'; give what it serves"),
        (Reply(200, JSON, "[]"), None, "lists no models at /v1/models"),
        (Reply(401, JSON, '{"error": "Unauthorized"}'), None, "Unauthorized; give its api_key"),
        (Reply(500, "text/plain", ""), None, "answers 500 to /v1/models: no reason given"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_used_is_refused_with_the_reason(waits, models, reply, error):
    models = models or Reply(200, JSON, '{"data": [{"id": "other", "max_model_len": 512}]}')
    with FakeServer(*[reply or ONE_TOKEN] * 9, models=models) as server, pytest.raises(EngineError) as raised:
        asyncio.run(OpenAIEngine.start("other", base_url=f"{server.url}/v1/"))
    assert error in str(raised.value)
    assert f"{server.url} " in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
