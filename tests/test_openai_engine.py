"""The openai engine, against real `vllm serve` processes; faults come from a proxy before one, or from killing it."""

import asyncio
from dataclasses import replace

import pytest
import torch

from parallel_reason import ParallelLLM, SamplingParams
from parallel_reason.engines.openai import engine as openai
from parallel_reason.engines.openai.bodies import INTERVAL
from parallel_reason.engines.torch.engine import TorchEngine
from parallel_reason.engines.vllm.compat import SEEDED_SAMPLER
from parallel_reason.errors import EngineError, ModelError
from parallel_reason.exactness import BOUND, compare, load_reference
from parallel_reason.runtime.events import TokensSampled, TraceFinished
from tests.cases import NO_GRAFT, WILD, dialect_of, many, seen_in
from tests.fake_server import connected
from tests.house import House, ask
from tests.servers import LONG, SLOW, Proxy, Serve, Watched, behind, build_served, encode, long, request

DIALECTS = ["spawn_join", "apr", "threadweaver", "parallel_r1"]
DRAWN = SamplingParams(temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_served(str(tmp_path_factory.mktemp("served")), DIALECTS)


@pytest.fixture(scope="module")
def servers(folder, tmp_path_factory):
    """Two servers of one name; the second is slow, and has other weights."""
    log = tmp_path_factory.mktemp("log")
    ours = ["--logits-processors", SEEDED_SAMPLER]
    started = [Serve(folder, log / "one", *ours), Serve(folder, log / "two", *SLOW)]
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
def fast(folder, server):
    """An engine on the first server, and what runs a coroutine."""
    with connected(folder, base_url=server.url) as pair:
        yield pair


@pytest.fixture(scope="module")
def llm(folder, server):
    with ParallelLLM(folder, engine="openai", base_url=server.url) as llm:
        yield llm


@pytest.fixture(scope="module")
def slow(folder, servers):
    with connected(folder, base_url=servers[1].url) as pair:
        yield pair


@pytest.fixture(scope="module")
def plain(folder):
    return load_reference(folder)


@pytest.mark.parametrize("case", [case for case in NO_GRAFT if dialect_of(case) in DIALECTS])
def test_log_probs_are_exact(llm, plain, monkeypatch, case):
    monkeypatch.setattr(openai, "FREED_S", 60)
    traces = many(llm, case, 96)
    assert not any(trace.errors for trace in traces)
    assert seen_in(traces)["joined"]
    assert max(compare(plain, trace).largest for trace in traces) < BOUND
    assert sum(thread.cached_tokens or 0 for trace in traces for thread in trace.threads) > 0
    assert llm.kv_is_free()


def test_greedy_tokens_are_the_references_first_choice_whatever_the_servers_defaults(llm, plain, ignoring_eos):
    traces = llm.generate(["ab", "abab", "aab"], limits=WILD)
    assert all(len(one.ids) and (one.best == one.ids).all() for one in (compare(plain, trace) for trace in traces))


def test_top_log_probs_are_those_of_a_plain_forward(fast, plain, ignoring_eos):
    engine, run = fast
    ids = encode(engine, "abxyab")
    output = run(engine.generate(request("top", ids, 20, temperature=1.0, logprobs=4)))
    with torch.no_grad():
        every = plain(torch.tensor([ids + output.ids])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    for top, row in zip(output.top_logprobs, every, strict=True):
        values, tokens = row.topk(4)
        assert list(top) == tokens.tolist()
        assert list(top.values()) == pytest.approx(values.tolist(), abs=BOUND)
    assert any(token not in top for token, top in zip(output.ids, output.top_logprobs, strict=True))


def test_children_hit_every_full_block_of_their_parents_prefix(fast):
    engine, run = fast
    prefix = encode(engine, "abcdefghij" * 13)

    async def fork():
        parent = await engine.generate(request("parent", prefix, 8, stop=[0]))
        seen = prefix + parent.ids
        children = [request(f"child {n}", [*seen, *encode(engine, "klmnopqr"[n])], 4) for n in range(8)]
        return seen, await asyncio.gather(*map(engine.generate, children))

    seen, children = run(fork())
    assert {child.cached_tokens for child in children} == {len(seen) // 32 * 32}
    assert {child.prefilled_tokens for child in children} == {len(seen) + 1}


def test_the_whole_window_can_be_used(fast, ignoring_eos):
    engine, run = fast
    ids = encode(engine, "ab" * (engine.context // 2 - 8))
    output = run(engine.generate(request("window", ids, 16)))
    assert (output.finish_reason, len(ids) + len(output.ids)) == ("length", engine.context)


def test_a_seed_repeats_and_another_does_not(fast):
    engine, run = fast
    ids = encode(engine, "ab")
    draws = [request(f"seed {n}", ids, 40, temperature=1.0, seed=seed) for n, seed in enumerate((5, 5, 6))]
    first, again, other = (run(engine.generate(draw)).ids for draw in draws)
    assert first == again != other


SERVED = [  # rules that a server does by itself
    {"repetition_penalty": 1.8, "ignore_eos": True},
    {"logit_bias": {5: 6.0, 7: -6.0}},
    {"allowed_token_ids": [4, 9, 11]},
]
OURS = [  # those for which it needs our sampler
    {"presence_penalty": 2.0, "ignore_eos": True},
    {"frequency_penalty": 2.0, "min_p": 0.1, "ignore_eos": True},
    {"bad_words": ["a", "b"]},
    {"min_tokens": 20, "logit_bias": {0: 9.0}},
    {"structured_outputs": {"regex": "(ab|cd){4,8}"}},
]


def test_rules_are_those_of_the_torch_engine(folder, server):
    """Greedy where the server's own sampler draws; and with our sampler and a seed, wherever a thread is cut."""
    on_torch = House(folder, TorchEngine.start(folder, device="cpu"))
    ids = encode(on_torch.engine, "ab" * 5)
    greedy = [ask(f"greedy {n}", ids, 30, **rule) for n, rule in enumerate(SERVED)]
    drawn = [ask(f"drawn {n}", ids, 30, temperature=1.0, seed=n, **rule) for n, rule in enumerate(SERVED + OURS)]
    expected, pieces = on_torch.all(*greedy, *drawn), []
    on_torch.close()

    async def all_of(engine, requests):
        return await asyncio.gather(*(engine.generate(request) for request in requests))

    with connected(folder, base_url=server.url) as (engine, run):
        outputs = run(all_of(engine, greedy))
    with connected(folder, base_url=server.url, seeded_sampler=True) as (engine, run):
        outputs += run(all_of(engine, drawn))
        for one in drawn:
            head = run(engine.generate(replace(one, max_tokens=7)))
            more = {"ids": ids + head.ids, "first_draw": len(head.ids), "sampled": head.ids, "tail": len(head.ids)}
            cut = head.finish_reason == "length"
            pieces.append(head.ids + (run(engine.generate(replace(one, max_tokens=23, **more))).ids if cut else []))
    assert [output.ids for output in outputs] == [output.ids for output in expected]
    assert pieces == [output.ids for output in expected[len(greedy) :]]


def test_score_equals_a_plain_forward(fast, plain):
    engine, run = fast
    ids = encode(engine, "abxyab\nsab:oa12b<spawn>xy<sep>ab" * 30)
    with torch.no_grad():
        logprobs = plain(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    wanted = logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert run(engine.score(ids)) == pytest.approx(wanted, abs=BOUND)
    assert run(engine.score(ids[:1])) == []


def test_an_abort_keeps_what_came_and_reaches_the_server(slow, servers, ignoring_eos):
    engine, run = slow
    watched = Watched(servers[1])

    async def cut():
        seen = [[] for _ in range(4)]
        names = [f"cut {n}" for n in range(4)]
        runs = [
            asyncio.create_task(
                engine.generate(long(engine, name, stream=True), lambda delta, ids=ids: ids.extend(delta.ids))
            )
            for name, ids in zip(names, seen, strict=True)
        ]
        assert await watched.running(4)
        while not all(seen) and not any(run.done() for run in runs):
            await asyncio.sleep(0.01)
        await engine.abort(names)
        await engine.abort(names)
        outputs = await asyncio.gather(*runs)
        assert await watched.ended(4)
        return seen, outputs

    seen, outputs = run(cut())
    assert {output.finish_reason for output in outputs} == {"abort"}
    assert seen == [output.ids for output in outputs]
    assert all(0 < len(output.logprobs) == len(output.ids) < LONG for output in outputs)
    assert run(engine.kv_is_free())


def test_an_abort_before_the_request_is_sent_is_not_lost(slow, servers, ignoring_eos):
    engine, run = slow
    watched = Watched(servers[1])

    async def race():
        names = [f"race {n}" for n in range(20)]
        runs = [asyncio.create_task(engine.generate(long(engine, name))) for name in names]
        await asyncio.sleep(0)
        await engine.abort(names)
        outputs = await asyncio.gather(*runs)
        assert {(output.finish_reason, output.prefilled_tokens) for output in outputs} == {("abort", 0)}
        assert await watched.ended(20)

    run(race())


def test_a_cancelled_task_reaches_the_server(slow, servers, ignoring_eos):
    engine, run = slow
    watched = Watched(servers[1])

    async def drop():
        task = asyncio.create_task(engine.generate(long(engine, "dropped")))
        assert await watched.running(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await watched.ended(1)

    run(drop())


def test_a_stop_text_reaches_the_server(slow, servers, ignoring_eos, monkeypatch):
    engine, run = slow
    monkeypatch.setattr(openai, "FREED_S", 60)
    first = run(engine.generate(request("first", encode(engine, "ab" * 16), 3))).ids
    assert run(engine.kv_is_free())  # so it is counted already
    watched = Watched(servers[1])

    async def stop():
        text = engine.tokenizer.decode(first)
        output = await engine.generate(long(engine, "stop", stop_texts=(text,)))
        assert (output.ids, output.finish_reason) == (first, "stop")
        assert await watched.ended(1)

    run(stop())


def test_tokens_come_one_by_one_in_a_stream(slow, ignoring_eos):
    engine, run = slow

    async def sizes(stream):
        """How many came at once, after the first. A server that lags sends more, so watch until some came alone."""
        name, seen, cut = f"stream {stream}", [], []

        def on_tokens(delta):
            seen.append(delta.ids)
            if (sum(len(ids) == 1 for ids in seen) if stream else len(seen)) > 4:
                cut.append(asyncio.ensure_future(engine.abort([name])))

        output = await engine.generate(long(engine, name, stream=stream), on_tokens)
        assert [token for ids in seen for token in ids] == output.ids
        return [len(ids) for ids in seen[1:]]

    assert min(run(sizes(True))) == 1
    assert min(run(sizes(False))) >= INTERVAL


def test_events_hold_every_sampled_token(llm):
    async def watch():
        return [event async for event in llm.stream("ab", DRAWN, WILD)]

    events = asyncio.run(watch())
    last = next(event for event in events if isinstance(event, TraceFinished))
    sampled = sum(len(event.ids) for event in events if isinstance(event, TokensSampled))
    assert sampled == last.trace.ledger.sampled_tokens > 0


def test_retries_are_bounded_and_the_error_says_so(server):
    with behind(server, retries=1) as (engine, run, proxy):
        proxy.faults = [503] * 9
        with pytest.raises(EngineError) as raised:
            run(engine.generate(request("r", encode(engine, "ab"), 4)))
        assert proxy.requests == 2
    assert str(raised.value) == (
        f"engine 'openai': no server answers after 2 tries: {proxy.url} answers 503 to /v1/completions: not now"
    )


def test_an_error_that_would_come_again_is_not_tried_again(server):
    with behind(server) as (engine, run, proxy):
        proxy.faults = [400]
        with pytest.raises(EngineError) as raised:
            run(engine.generate(request("r", encode(engine, "ab"), 4)))
        assert proxy.requests == 1
    assert str(raised.value) == f"engine 'openai': {proxy.url} answers 400 to /v1/completions: not now"


def test_a_connection_that_breaks_before_the_first_token_is_tried_again_and_later_is_not(server, ignoring_eos):
    with behind(server) as (engine, run, proxy):
        proxy.faults = [0]
        whole = run(engine.generate(request("whole", encode(engine, "ab"), 30, stream=True)))
        assert (len(whole.ids), proxy.requests) == (30, 2)
        proxy.faults = [1]
        with pytest.raises(EngineError, match=proxy.url):
            run(engine.generate(request("broken", encode(engine, "ab"), 30, stream=True)))
        assert proxy.requests == 3


def test_a_server_that_hangs_is_late_and_the_error_names_the_bound(server):
    with behind(server, timeout_s=5) as (engine, run, proxy):
        proxy.faults = ["hang"]
        with pytest.raises(EngineError) as raised:
            run(engine.generate(request("r", encode(engine, "ab"), 4)))
        assert proxy.requests == 1
    assert str(raised.value) == f"engine 'openai': {proxy.url} sent nothing within timeout_s=5"


def test_all_threads_of_a_trace_meet_the_same_server(server, plain):
    with Proxy(server) as one, Proxy(server) as two, ParallelLLM(engine="openai", base_url=[one.url, two.url]) as llm:
        one.bodies.clear()
        two.bodies.clear()
        prompts = [encode(llm.engine, f"{n % 10}{n // 10}ab") for n in range(48)]
        traces = llm.generate(prompts, SamplingParams(temperature=1.0), WILD)
    assert seen_in(traces)["forks"]
    met = [[any(ids[:4] == body["prompt"][:4] for body in proxy.bodies) for proxy in (one, two)] for ids in prompts]
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


def test_what_the_server_does_not_have_is_refused(server):
    with pytest.raises(EngineError, match=r"serves '.*', not 'nobody/nothing'"):
        ParallelLLM("nobody/nothing", engine="openai", base_url=server.url)
    with pytest.raises(ModelError, match=r"tokenizer=\.\.\."):
        ParallelLLM(engine="openai", base_url=server.url, tokenizer="/nowhere")


def test_a_server_that_is_killed_fails_its_own_requests_once_each_and_no_other(servers, folder, ignoring_eos):
    """The last test of the slow server, which it kills."""
    doomed = servers[1]
    urls = [server.url for server in servers]
    with connected(folder, base_url=urls) as (engine, run), connected(folder, base_url=doomed.url) as (lone, run_lone):
        names = [f"trace {n}" for n in range(48)]
        there = {name for name in names if engine._servers.order(name)[0].url == doomed.url}
        to_begin = set(there)

        def on_tokens(name):
            def began(delta):
                to_begin.discard(name)
                if not to_begin:
                    doomed.kill()

            return began

        async def all_at_once():
            calls = [
                engine.generate(long(engine, name, trace=name) if name in there else
                                request(name, encode(engine, "ab"), 200, trace=name), on_tokens(name))
                for name in names
            ]  # fmt: skip
            return await asyncio.gather(*calls, return_exceptions=True)

        outputs = dict(zip(names, run(all_at_once()), strict=True))
        assert 0 < len(there) < 48
        assert {name for name, output in outputs.items() if isinstance(output, EngineError)} == there
        for name in there:
            error = str(outputs[name])
            assert error.startswith(f"engine 'openai': {doomed.url} ")
            assert len(error.splitlines()) == error.count(doomed.url) == 1
        again = [engine.generate(request(f"again {name}", encode(engine, "ab"), 8, trace=name)) for name in there]
        for call in again:
            assert len(run(call).ids) == 8
        with pytest.raises(EngineError) as raised:
            run_lone(lone.generate(request("lost", encode(engine, "ab"), 8)))
        assert str(raised.value).count(doomed.url) == 1
