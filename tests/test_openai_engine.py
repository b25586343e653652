"""The openai engine, against real `vllm serve` processes; faults come from a proxy before one, or from killing it."""

import asyncio
import json
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from parallel_reason import ParallelLLM, SamplingParams
from parallel_reason.check import BOUND, compare, load_reference
from parallel_reason.controller import Run
from parallel_reason.dialects import bind
from parallel_reason.engines import openai
from parallel_reason.engines.base import Decode
from parallel_reason.errors import EngineError, InputError, ModelError
from parallel_reason.events import Tokens
from tests.grammars import build
from tests.servers import Other, Proxy, Serve, Watched, behind
from tests.test_exactness import NO_GRAFT, WILD, many, seen_in

DIALECTS = ["spawn_join", "apr", "threadweaver", "parallel_r1"]
DRAWN = SamplingParams(temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose own defaults of sampling would change every trace."""
    path = build(str(tmp_path_factory.mktemp("served")), "qwen3", DIALECTS)
    defaults = {"eos_token_id": 0, "repetition_penalty": 1.9, "top_k": 2, "temperature": 0.3, "do_sample": True}
    (Path(path) / "generation_config.json").write_text(json.dumps(defaults))
    return path


@pytest.fixture(scope="module")
def servers(folder, tmp_path_factory):
    """Two servers of the same model."""
    log = tmp_path_factory.mktemp("log")
    started = [Serve(folder, log / "one"), Serve(folder, log / "two")]
    try:
        yield [server.ready() for server in started]
        assert not started[0].stop()
    finally:
        for server in started:
            server.kill()


@pytest.fixture(scope="module")
def server(servers):
    return servers[0]


@pytest.fixture(scope="module")
def llm(folder, server):
    with ParallelLLM(folder, engine="openai", base_url=server.url) as llm:
        yield llm


@pytest.fixture(scope="module")
def plain(folder):
    return load_reference(folder)


def request(name, ids, tokens, *, temperature=0.0, seed=None, live=False, stop=()):
    return Decode(name, ids, tokens, frozenset(stop), SamplingParams(temperature=temperature), seed=seed, live=live)


def words(llm, text):
    return llm.engine.tokenizer.encode(text)


def long(llm, name, live=False):
    """A request that only its bound ends, with `endless`."""
    return request(name, words(llm, "ab" * 16), 1500, live=live)


@pytest.fixture
def endless(monkeypatch):
    """Servers are asked to go on after the model's own end of text."""
    decoding = openai.decoding
    monkeypatch.setattr(openai, "decoding", lambda request, model: decoding(request, model) | {"ignore_eos": True})


@pytest.mark.parametrize("case", NO_GRAFT)
def test_log_probs_are_exact(llm, plain, case):
    traces = many(llm, case, 96)
    assert seen_in(traces)["joined"] > 3
    assert max(compare(plain, trace).largest for trace in traces) < BOUND
    assert sum(trace.ledger.cached_tokens for trace in traces) > 0
    assert llm.run(llm.engine.kv_is_free())


def test_greedy_tokens_are_the_references_first_choice_whatever_the_servers_defaults(llm, plain, endless):
    traces = llm.generate(["ab", "abab", "aab"], limits=WILD)
    for compared in (compare(plain, trace) for trace in traces):
        assert (compared.best == compared.ids).all()


def test_children_hit_every_full_block_of_their_parents_prefix(llm):
    prefix = words(llm, "abcdefghij" * 13)

    async def fork():
        parent = await llm.engine.generate(request("hit/0/0/0", prefix, 8, stop=[0]))
        seen = prefix + parent.ids
        children = [request(f"hit/0/0.{n}/{n}", [*seen, *words(llm, "klmnopqr"[n])], 4) for n in range(8)]
        return seen, await asyncio.gather(*map(llm.engine.generate, children))

    seen, children = llm.run(fork())
    assert {child.cached_tokens for child in children} == {len(seen) // 32 * 32}


def test_the_whole_window_can_be_used(llm):
    ids = words(llm, "ab" * 512)
    decoded = llm.run(llm.engine.generate(request("window", ids, llm.engine.context - len(ids), temperature=1.0)))
    assert decoded.reason == "length" or decoded.ids[-1] == 0


def test_a_seed_repeats_and_another_does_not(llm):
    draws = [request(f"seed {n}", words(llm, "ab"), 40, temperature=1.0, seed=seed) for n, seed in enumerate((5, 5, 6))]
    first, again, other = (llm.run(llm.engine.generate(draw)).ids for draw in draws)
    assert first == again != other


def test_score_equals_a_plain_forward(llm, plain):
    import torch

    ids = words(llm, "abxyab\nsab:oa12b<spawn>xy<sep>ab" * 30)
    with torch.no_grad():
        logprobs = plain(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    wanted = logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert llm.run(llm.engine.score(ids)) == pytest.approx(wanted, abs=BOUND)
    assert llm.run(llm.engine.score(ids[:1])) == []


def test_an_abort_keeps_what_came_and_reaches_the_server(llm, server, endless):
    watched = Watched(server)

    async def cut():
        seen, enough = [], asyncio.Event()

        def on_tokens(ids):
            seen.extend(ids)
            if len(seen) >= 5:
                enough.set()

        runs = [asyncio.create_task(llm.engine.generate(long(llm, f"cut {n}", live=True), on_tokens)) for n in range(4)]
        await enough.wait()
        held = 0  # the server's figures come a moment after its tokens
        while not held and len(seen) < 1500:
            held = await asyncio.to_thread(server.metric, "vllm:num_requests_running")
        for n in range(4):
            await llm.engine.abort(f"cut {n}")
            await llm.engine.abort(f"cut {n}")
        decoded = await asyncio.gather(*runs)
        return seen, held, decoded, await watched.ended(4)

    seen, held, decoded, ended = llm.run(cut())
    assert held > 0
    assert ended
    assert {d.reason for d in decoded} == {"abort"}
    assert sorted(seen) == sorted(token for d in decoded for token in d.ids)
    assert all(len(d.logprobs) == len(d.ids) < 1500 for d in decoded)
    assert llm.run(llm.engine.kv_is_free())


def test_an_abort_before_the_request_is_sent_is_not_lost(llm, server, endless):
    watched = Watched(server)

    async def race():
        runs = [asyncio.create_task(llm.engine.generate(long(llm, f"race {n}"))) for n in range(20)]
        await asyncio.sleep(0)
        for n in range(20):
            await llm.engine.abort(f"race {n}")
        decoded = await asyncio.gather(*runs)
        return decoded, await watched.ended(20)

    decoded, ended = llm.run(race())
    assert {d.reason for d in decoded} == {"abort"}
    assert ended


def test_a_cancelled_task_reaches_the_server(llm, server, endless):
    watched = Watched(server)

    async def drop():
        started = asyncio.Event()
        task = asyncio.create_task(llm.engine.generate(long(llm, "dropped", live=True), lambda ids: started.set()))
        await started.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled(), await watched.ended(1)

    assert llm.run(drop()) == (True, True)


def test_tokens_come_one_by_one_to_those_who_watch(llm, endless):
    async def calls(live):
        seen = []
        decoded = await llm.engine.generate(request(f"live {live}", words(llm, "ab" * 16), 80, live=live), seen.append)
        assert [token for ids in seen for token in ids] == decoded.ids
        return len(seen)

    assert llm.run(calls(True)) > 2 * llm.run(calls(False))


def test_events_hold_every_sampled_token(llm):
    async def watch():
        return [event async for event in llm.stream("ab", DRAWN, WILD)]

    *events, last = asyncio.run(watch())
    assert sum(len(event.ids) for event in events if isinstance(event, Tokens)) == last.trace.ledger.sampled_tokens


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_recovers_is_asked_again(server, status):
    with behind(server) as (llm, proxy):
        proxy.faults = [status, status]
        assert llm.generate("ab", limits=WILD).status in ("finished", "length")
        llm.run(llm.engine.generate(request("again", words(llm, "ab"), 4)))
        assert not proxy.faults


def test_retries_are_bounded_and_the_error_says_so(server):
    with behind(server, retries=1) as (llm, proxy):
        proxy.faults = [503] * 9
        trace = llm.generate("ab")
        assert (trace.status, proxy.asked) == ("failed", 2)
        assert trace.why == (
            f"engine 'openai': no server answers after 2 tries: {proxy.url} answers 503 to /v1/completions: not now"
        )


@pytest.mark.parametrize("fault", [400, 500])
def test_an_error_that_would_come_again_is_not_tried_again(server, fault):
    with behind(server) as (llm, proxy):
        proxy.faults = [fault]
        trace = llm.generate("ab")
        assert (trace.status, proxy.asked) == ("failed", 1)
        assert trace.why == f"engine 'openai': {proxy.url} answers {fault} to /v1/completions: not now"


def test_a_connection_that_breaks_before_the_first_token_is_tried_again_and_later_is_not(server, endless):
    with behind(server) as (llm, proxy):
        proxy.faults = [0]
        whole = llm.run(llm.engine.generate(request("whole", words(llm, "ab"), 30, live=True)))
        assert (len(whole.ids), proxy.asked) == (30, 2)
        proxy.faults = [3]
        with pytest.raises(EngineError, match=proxy.url):
            llm.run(llm.engine.generate(request("broken", words(llm, "ab"), 30, live=True)))
        assert proxy.asked == 3


def test_a_server_that_hangs_is_late_and_the_error_names_the_bound(server):
    with behind(server, timeout_s=1.5) as (llm, proxy):
        proxy.faults = ["hang"]
        trace = llm.generate("ab")
        assert (trace.status, proxy.asked) == ("failed", 1)
        assert trace.why == f"engine 'openai': {proxy.url} sent nothing within timeout_s=1.5"


def test_all_threads_of_a_trace_meet_the_same_server(server, plain):
    with Proxy(server) as one, Proxy(server) as two, ParallelLLM(engine="openai", base_url=[one.url, two.url]) as llm:
        one.prompts.clear()
        two.prompts.clear()
        prompts = [words(llm, f"{n % 10}{n // 10}ab") for n in range(24)]
        traces = llm.generate(prompts, DRAWN, WILD)
        assert seen_in(traces)["joined"] > 0
        met = [[any(ids[:4] == prompt for ids in proxy.prompts) for proxy in (one, two)] for prompt in prompts]
        assert all(sum(servers) == 1 for servers in met)
        assert 0 < sum(first for first, _ in met) < 24
        assert max(compare(plain, trace).largest for trace in traces) < BOUND


def test_a_server_that_is_down_is_passed_over(server, plain):
    with Proxy(server) as one, Proxy(server) as two:
        dead = f"http://127.0.0.1:{two.server_port}"
        with ParallelLLM(engine="openai", base_url=[one.url, two.url]) as llm:
            two.shutdown()
            two.server_close()
            traces = many(llm, "spawn_join", 24)
            assert not [thread for trace in traces for thread in trace.threads if thread.status == "failed"]
            assert max(compare(plain, trace).largest for trace in traces) < BOUND
        with ParallelLLM(engine="openai", base_url=[dead, one.url]) as llm:
            assert all(trace.status in ("finished", "length") for trace in many(llm, "spawn_join", 12))
        with pytest.raises(EngineError, match="no server answers"):
            ParallelLLM(engine="openai", base_url=[dead])


def test_a_server_that_is_killed_fails_its_own_traces_once_each_and_no_other(servers, folder):
    doomed = servers[1]
    both = [server.url for server in servers]
    with (
        ParallelLLM(folder, engine="openai", base_url=both) as llm,
        ParallelLLM(folder, engine="openai", base_url=doomed.url) as alone,
    ):
        dialect, there, came = bind("spawn_join", llm.engine.tokenizer), set(), []

        def emit(number):
            def count(event):
                if number in there and isinstance(event, Tokens):
                    came.append(event)
                    if len(came) == 1:
                        doomed.kill()

            return count

        runs = [Run(llm.engine, dialect, DRAWN, WILD, n, emit(n)) for n in range(48)]
        order = llm.engine._servers.order
        there |= {n for n, run in enumerate(runs) if order(f"{run.number}/{n}")[0].url == doomed.url}

        async def all_at_once():
            return await asyncio.gather(*(run.trace("", words(llm, "ab")) for run in runs))

        traces = llm.run(all_at_once())
        failed = {n for n, trace in enumerate(traces) if trace.status == "failed"}
        assert came  # the server was killed; traces that were between two requests go on at the other
        assert failed <= there
        for n in failed:
            assert traces[n].why.startswith(f"engine 'openai': {doomed.url} ")
            assert len(traces[n].why.splitlines()) == 1
        hurt = {n for n, trace in enumerate(traces) if any(thread.status == "failed" for thread in trace.threads)}
        assert hurt <= there
        assert not [trace for trace in many(llm, "spawn_join", 24) if trace.status == "failed"]

        lost = alone.generate(["ab"] * 5)
        assert [trace.status for trace in lost] == ["failed"] * 5
        assert {trace.why.count(doomed.url) for trace in lost} == {1}


def chunk(**choice):
    return "data: " + json.dumps({"choices": [{"index": 0, "text": "x", **choice}]}) + "\n\ndata: [DONE]\n\n"


EVENTS = "text/event-stream; charset=utf-8"
MODELS = (200, "application/json", '{"data": [{"id": "other", "max_model_len": 512}]}')


@pytest.mark.parametrize(
    ("models", "completions", "says"),
    [
        (MODELS, (400, "application/json", '{"error": {"message": "prompt must be\\na string"}}'),
         "answers 400 to /v1/completions: prompt must be a string; engine 'openai' needs token ids"),
        (MODELS, (200, EVENTS, chunk(logprobs=None)), "returns no token ids for return_token_ids=true"),
        (MODELS, (200, EVENTS, chunk(token_ids=[1])), "returns no log-probs for logprobs=0"),
        (MODELS, (200, EVENTS, chunk(token_ids=[], logprobs={"token_logprobs": []})), "returned 0 token ids"),
        (MODELS, (200, EVENTS, 'data: {"error": {"message": "out of memory"}}\n\n'), "failed: out of memory"),
        (MODELS, (200, EVENTS, "data: hello\n\n"), "streams something else than completions"),
        (MODELS, (200, "application/json", "{}"), "answers application/json to stream=true"),
        (MODELS, (404, "text/html", "<html>"), "answers 404 to /v1/completions: <html>"),
        (MODELS, (200, EVENTS, ": nothing more"), "broke off its answer"),
        ((200, "application/json", '{"data": [{"id": "other"}]}'), None, "does not tell max_model_len"),
        ((200, "application/json", '{"data": [{"id": "another"}]}'), None, "serves 'another', not 'other'"),
        ((200, "application/json", '{"data": []}'), None, "serves no model, not 'other'; give what it serves"),
        ((200, "application/json", "[]"), None, "lists no models at /v1/models"),
        ((401, "application/json", '{"error": "Unauthorized"}'), None, "Unauthorized; give its api_key"),
        ((500, "text/plain", ""), None, "answers 500 to /v1/models: no reason given"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_used_is_refused_with_the_reason(models, completions, says):
    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        other.says = {"/v1/models": models, "/v1/completions": completions}
        threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
        try:
            with pytest.raises(EngineError) as error:
                ParallelLLM("other", engine="openai", base_url=f"http://127.0.0.1:{other.server_port}/v1/")
        finally:
            other.shutdown()
    assert says in str(error.value)
    assert f"http://127.0.0.1:{other.server_port} " in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_the_server_does_not_have_is_refused(server):
    with pytest.raises(EngineError, match=r"serves '.*', not 'nobody/nothing'"):
        ParallelLLM("nobody/nothing", engine="openai", base_url=server.url)
    with pytest.raises(ModelError, match=r"give tokenizer="):
        ParallelLLM(engine="openai", base_url=server.url, tokenizer="/nowhere")
    with pytest.raises(InputError, match="graft"):
        ParallelLLM(engine="openai", base_url=server.url, dialect="multiverse")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "missing a required argument: 'base_url'"),
        ({"base_url": "localhost:8000"}, "base_url 'localhost:8000' is no address"),
        ({"base_url": []}, "base_url is empty"),
        ({"base_url": "http://localhost:1", "context": 5}, "unexpected keyword argument 'context'"),
        ({"base_url": "http://localhost:1", "timeout_s": 0}, "a time-out must be above 0 s, not 0"),
        ({"base_url": "http://localhost:1", "retries": -1}, "retries must be at least 0, not -1"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        ParallelLLM(engine="openai", **options)
