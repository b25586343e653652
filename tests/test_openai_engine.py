"""The openai engine, against real `vllm serve` processes; faults come from a proxy before one, or from killing it."""

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from evals.grammars import build
from parallel_reason import Limits, ParallelLLM, SamplingParams
from parallel_reason.check import BOUND, compare, load_reference
from parallel_reason.controller import Run
from parallel_reason.dialects import SpawnJoin
from parallel_reason.dialects.base import Stops
from parallel_reason.engines import openai
from parallel_reason.engines.base import Decode
from parallel_reason.engines.openai_wire import INTERVAL
from parallel_reason.errors import EngineError, InputError, ModelError
from parallel_reason.events import Tokens
from tests.cases import NO_GRAFT, WILD, many, seen_in
from tests.servers import EVENTS, LONG, MODELS, SLOW, Proxy, Serve, Watched, behind, chunk, other

DIALECTS = ["spawn_join", "apr", "threadweaver", "parallel_r1"]
DRAWN = SamplingParams(temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose own defaults of sampling would change every trace."""
    path = build(str(tmp_path_factory.mktemp("served")), "qwen3", DIALECTS, window=2 * LONG)
    defaults = {"eos_token_id": 0, "repetition_penalty": 1.9, "top_k": 2, "temperature": 0.3, "do_sample": True}
    (Path(path) / "generation_config.json").write_text(json.dumps(defaults))
    return path


@pytest.fixture(scope="module")
def servers(folder, tmp_path_factory):
    """Two servers of one name; the second is slow, and has other weights."""
    log = tmp_path_factory.mktemp("log")
    started = [Serve(folder, log / "one"), Serve(folder, log / "two", *SLOW)]
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
def slow(folder, servers):
    with ParallelLLM(folder, engine="openai", base_url=servers[1].url) as llm:
        yield llm


@pytest.fixture(scope="module")
def plain(folder):
    return load_reference(folder)


def request(name, ids, tokens, *, temperature=0.0, seed=None, live=False, stop=()):
    return Decode(name, ids, tokens, frozenset(stop), SamplingParams(temperature=temperature), seed=seed, live=live)


def words(llm, text):
    return llm.engine.tokenizer.encode(text)


def long(slow, name, live=False):
    """A request that only its bound ends, with `endless`; it is cut short long before."""
    return request(name, words(slow, "ab" * 16), LONG, live=live)


@pytest.fixture
def endless(monkeypatch):
    """Servers are asked to go on after the model's own end of text."""
    decoding = openai.decoding
    monkeypatch.setattr(openai, "decoding", lambda request, model: decoding(request, model) | {"ignore_eos": True})


@pytest.mark.parametrize("case", NO_GRAFT)
def test_log_probs_are_exact(llm, plain, monkeypatch, case):
    monkeypatch.setattr(openai, "FREED_S", 60)
    traces = many(llm, case, 96)
    assert seen_in(traces)["joined"]
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


def test_the_whole_window_can_be_used(llm, endless):
    ids = words(llm, "ab" * (llm.engine.context // 2 - 8))
    decoded = llm.run(llm.engine.generate(request("window", ids, 16)))
    assert (decoded.reason, len(ids) + len(decoded.ids)) == ("length", llm.engine.context)


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


def test_an_abort_keeps_what_came_and_reaches_the_server(slow, servers, endless):
    watched = Watched(servers[1])

    async def cut():
        seen = [[] for _ in range(4)]
        calls = [slow.engine.generate(long(slow, f"cut {n}", live=True), seen[n].extend) for n in range(4)]
        runs = list(map(asyncio.create_task, calls))
        assert await watched.running(4)
        while not all(seen) and not any(run.done() for run in runs):
            await asyncio.sleep(0.01)
        for n in range(4):
            await slow.engine.abort(f"cut {n}")
            await slow.engine.abort(f"cut {n}")
        decoded = await asyncio.gather(*runs)
        assert await watched.ended(4)
        return seen, decoded

    seen, decoded = slow.run(cut())
    assert {d.reason for d in decoded} == {"abort"}
    assert seen == [d.ids for d in decoded]
    assert all(0 < len(d.logprobs) == len(d.ids) < LONG for d in decoded)
    assert slow.run(slow.engine.kv_is_free())


def test_an_abort_before_the_request_is_sent_is_not_lost(slow, servers, endless):
    watched = Watched(servers[1])

    async def race():
        runs = [asyncio.create_task(slow.engine.generate(long(slow, f"race {n}"))) for n in range(20)]
        await asyncio.sleep(0)
        for n in range(20):
            await slow.engine.abort(f"race {n}")
        assert {decoded.reason for decoded in await asyncio.gather(*runs)} == {"abort"}
        assert await watched.ended(20)

    slow.run(race())


def test_a_cancelled_task_reaches_the_server(slow, servers, endless):
    watched = Watched(servers[1])

    async def drop():
        task = asyncio.create_task(slow.engine.generate(long(slow, "dropped")))
        assert await watched.running(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await watched.ended(1)

    slow.run(drop())


def test_tokens_come_one_by_one_to_those_who_watch(slow, endless):
    async def sizes(live):
        """How many came at once, after the first. A server that lags sends more, so watch until some came alone."""
        name, seen, cut = f"live {live}", [], []

        def on_tokens(ids):
            seen.append(ids)
            if (sum(len(ids) == 1 for ids in seen) if live else len(seen)) > 4:
                cut.append(asyncio.ensure_future(slow.engine.abort(name)))

        decoded = await slow.engine.generate(long(slow, name, live=live), on_tokens)
        assert [token for ids in seen for token in ids] == decoded.ids
        return [len(ids) for ids in seen[1:]]

    assert min(slow.run(sizes(True))) == 1
    assert min(slow.run(sizes(False))) >= INTERVAL


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
        proxy.faults = [1]
        with pytest.raises(EngineError, match=proxy.url):
            llm.run(llm.engine.generate(request("broken", words(llm, "ab"), 30, live=True)))
        assert proxy.asked == 3


def test_a_server_that_hangs_is_late_and_the_error_names_the_bound(server):
    with behind(server, timeout_s=5) as (llm, proxy):
        proxy.faults = ["hang"]
        trace = llm.generate("ab")
        assert (trace.status, proxy.asked) == ("failed", 1)
        assert trace.why == f"engine 'openai': {proxy.url} sent nothing within timeout_s=5"


def test_all_threads_of_a_trace_meet_the_same_server(server, plain):
    with Proxy(server) as one, Proxy(server) as two, ParallelLLM(engine="openai", base_url=[one.url, two.url]) as llm:
        one.prompts.clear()
        two.prompts.clear()
        prompts = [words(llm, f"{n % 10}{n // 10}ab") for n in range(48)]
        traces = llm.generate(prompts, SamplingParams(temperature=1.0), WILD)
        assert seen_in(traces)["forks"]
        met = [[any(ids[:4] == prompt for ids in proxy.prompts) for proxy in (one, two)] for prompt in prompts]
        assert all(sum(servers) == 1 for servers in met)
        assert 0 < sum(first for first, _ in met) < 48
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


class Deaf(SpawnJoin):
    """Stops at no tag, so that with `endless` a trace is one request."""

    def stops(self, depth):
        return Stops()


def test_a_server_that_is_killed_fails_its_own_traces_once_each_and_no_other(servers, folder, endless):
    doomed = servers[1]
    with (
        ParallelLLM(folder, engine="openai", base_url=[server.url for server in servers]) as llm,
        ParallelLLM(folder, engine="openai", base_url=doomed.url) as alone,
    ):
        to_begin = set()

        def saw(number, event):
            if number in to_begin and isinstance(event, Tokens):
                to_begin.remove(number)
                if not to_begin:
                    doomed.kill()

        tags, deaf = SpawnJoin.bind(llm.engine.tokenizer), Deaf.bind(llm.engine.tokenizer)
        runs = {n: Run(llm.engine, tags, DRAWN, WILD, n, partial(saw, n)) for n in range(40)}
        runs |= {n: Run(llm.engine, deaf, DRAWN, Limits(tokens=LONG), n, partial(saw, n)) for n in range(40, 64)}
        order = llm.engine._servers.order
        there = {n for n, run in runs.items() if order(f"{run.number}/{n}")[0].url == doomed.url}
        midway = there - set(range(40))  # the others may be between two requests, and go on elsewhere
        runs = {n: run for n, run in runs.items() if n < 40 or n in midway}
        to_begin |= midway

        async def all_at_once():
            return await asyncio.gather(*(run.trace("", words(llm, "ab")) for run in runs.values()))

        traces = dict(zip(runs, llm.run(all_at_once()), strict=True))
        failed = {n for n, trace in traces.items() if trace.status == "failed"}
        assert midway
        assert midway <= failed <= there
        for n in failed:
            assert traces[n].why.startswith(f"engine 'openai': {doomed.url} ")
            assert len(traces[n].why.splitlines()) == traces[n].why.count(doomed.url) == 1
        hurt = {n for n, trace in traces.items() if any(thread.status == "failed" for thread in trace.threads)}
        assert hurt <= there
        assert not [trace for trace in many(llm, "spawn_join", 24) if trace.status == "failed"]

        lost = alone.generate(["ab"] * 5)
        assert [trace.status for trace in lost] == ["failed"] * 5
        assert {trace.why.count(doomed.url) for trace in lost} == {1}


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
    with other({"/v1/models": models, "/v1/completions": completions}) as url, pytest.raises(EngineError) as error:
        ParallelLLM("other", engine="openai", base_url=f"{url}/v1/")
    assert says in str(error.value)
    assert f"{url} " in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_the_server_does_not_have_is_refused(server):
    with pytest.raises(EngineError, match=r"serves '.*', not 'nobody/nothing'"):
        ParallelLLM("nobody/nothing", engine="openai", base_url=server.url)
    with pytest.raises(ModelError, match=r"tokenizer=\.\.\."):
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
