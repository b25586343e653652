"""What programs can do, on an engine that writes given texts: the verbs."""

import asyncio
import math

from tests.scripted import WORDS, ids
from tests.scripted_programs import endless, run


def test_threads_fork_sample_write_and_join():
    seen = {}

    async def program(t):
        paths = t.fork(["A", ids("BC"), ""])
        seen["first"] = await paths.sample()
        seen["second"] = await paths.sample()
        seen["ended"] = [path.ended for path in paths]
        t.join([paths[2], paths[0]], "relinearise", "E")
        seen["own"] = [await t.sample(), await t.sample(), await t.sample()]
        t.finish(t.text.upper())
        return "not this"

    trace = run(program)
    assert seen == {
        "first": ["aa", "b", "ccc"],
        "second": ["x", "", "d"],
        "ended": [True, True, False],
        "own": ["ab", "cd", ""],
    }
    assert (trace.answer, trace.status, trace.dialect) == ("ABCD", "finished", "program:program")
    ends = {thread.label: (thread.status, thread.stop_reason) for thread in trace.threads}
    assert ends == {
        "0": ("finished", "<eos>"),
        "0.0": ("finished", "<eos>"),
        "0.1": ("finished", "<eos>"),
        "0.2": ("finished", "joined"),
    }
    joined, left = trace.root.forks[1], trace.root.forks[0]
    assert [trace.threads[child].label for child in joined.children] == ["0.2", "0.0"]
    assert (joined.join_rule, left.join_rule) == ("relinearise", "message")
    assert WORDS.decode(trace.root.spans[1].ids) == "Aaax<eos>"
    assert trace.ledger.critical_path_tokens == 4 + 2 + 3


def test_a_thread_goes_on_after_an_end_of_text_that_was_taken_back_or_written_over():
    async def program(t):
        await t.sample()
        await t.sample()
        assert t.ended
        t.take_back(1)
        assert not t.ended
        t.write("Wait")
        return await t.sample()

    trace = run(program, {"0": ["ab", "c<eos>", "de<eos>"]})
    assert trace.answer == "de"
    assert [(WORDS.decode(span.ids), span.taken_back) for span in trace.root.spans[1:]] == [
        ("abc<eos>", 0), ("", 1), ("Wait", 0), ("de<eos>", 0),
    ]  # fmt: skip


def test_rounds_that_a_program_waited_for_are_one_after_another_on_the_critical_path():
    async def program(t):
        for _ in range(2):
            await t.fork(3).sample(5)
        t.join([])
        await asyncio.gather(t.probe("p").sample(50), t.sample(4))

    trace = run(program, over=endless())
    assert trace.ledger.sampled_tokens == 2 * 3 * 5 + 50 + 4
    assert trace.ledger.critical_path_tokens == 5 + 5 + 4


def test_a_probe_sees_the_tokens_that_were_read_while_its_thread_samples_on():
    seen = []

    async def program(t):
        async for token in t.stream(12, logprobs=1):
            assert token.text == "a"
            assert token.top_logprobs == {token.id: 0.0}
            if t.sampled_tokens == 5:
                probe = t.probe("x")
                seen.append((await probe.sample(2), t.sampled_tokens))

    over = endless()
    trace = run(program, over=over)
    assert seen == [("aa", 5)]
    request = next(request for request in over.engine.requests if request.label == "0.0")
    assert WORDS.decode(request.ids) == "Qaaaaax"
    assert (trace.root.tokens("sampled"), trace.ledger.sampled_tokens) == (12, 14)
    assert not trace.root.forks[0].waited


def test_who_leaves_a_stream_has_the_tokens_that_were_read():
    async def program(t):
        async for _ in t.stream(400):
            if t.sampled_tokens == 3:
                break
        t.write("b")
        assert await t.sample(2) == "aa"

    trace = run(program, over=endless(0.001))
    assert WORDS.decode([token for span in trace.root.spans for token in span.ids]) == "Qaaabaa"


def test_threads_are_yielded_as_their_calls_end():
    async def program(t):
        order = [path.label async for path in t.fork(3).as_completed()]
        t.join([])
        first = await t.fork(3).first(1)
        assert [one.label for one in first] == ["0.4"]
        return order

    delays = {"0.0": 0.09, "0.1": 0.03, "0.2": 0.001, "0.3": 0.2, "0.4": 0.001, "0.5": math.inf}
    trace = run(program, {label: ["a<eos>"] for label in delays}, delay_s=lambda request: delays.get(request.label, 0))
    assert trace.answer == "['0.2', '0.1', '0.0']"
    assert [thread.label for thread in trace.threads if thread.stop_reason == "others were sooner"] == ["0.3", "0.5"]


def test_programs_nest():
    async def inner(t):
        paths = t.fork(2)
        await paths.sample(2)
        t.join(paths[:1], "graft")
        return await t.sample(3)

    async def outer(t):
        children = t.fork(2)
        answers = await asyncio.gather(*map(inner, children))
        t.join(children, "graft")
        return answers

    trace = run(outer, over=endless())
    assert trace.answer == "['aaa', 'aaa']"
    assert trace.ledger.critical_path_tokens == 5
    assert max(thread.depth for thread in trace.threads) == 2


def test_the_question_of_a_text_is_a_thread_that_sees_nothing_else():
    async def program(t):
        await t.sample(3)
        return await t.ask([1, 2, 3], 4)

    over = endless()
    trace = run(program, over=over)
    assert trace.answer == "aaaa"
    assert over.engine.requests[-1].ids == [1, 2, 3]
    assert not trace.root.forks[0].shares_prefix
    assert trace.ledger.critical_path_tokens == 7
