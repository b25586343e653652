"""AsyncThink to the letter, and what holds of every thread that goes on while its children run."""

import asyncio
import itertools

import pytest

from benchmarks.grammars import tokenizer, tokenizer_of
from parallel_reason import Limits, Session, layout
from parallel_reason.dialects import bind
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.errors import InputError
from parallel_reason.runtime import transitions
from parallel_reason.runtime.events import ThreadEnded, ThreadStarted, TokensSampled
from parallel_reason.runtime.replay import parse, problems
from parallel_reason.trace import Fork, Span, Thread
from parallel_reason.trace.flat import flatten
from parallel_reason.trace.ledger import critical_paths
from tests.chains import chain_engine
from tests.written import scripted, written

TOKENS = tokenizer_of(["async_think"])
FORK_BOTH = ["a<FORK-1>p q</FORK-1>", "b<FORK-2>r</FORK-2>", "c<JOIN-1>", "d<JOIN-2>", "<ANSWER>e</ANSWER>"]
BOTH = {"0": FORK_BOTH, "0.0": ["xx<RETURN>y</RETURN>"], "0.1": ["zz<RETURN>w</RETURN>"]}


def test_what_a_worker_returned_stands_where_the_organizer_asked_for_it():
    trace = scripted("async_think", BOTH)
    assert written(trace) == {
        "0": "a<FORK-1>p q</FORK-1>b<FORK-2>r</FORK-2>c<JOIN-1>{y</JOIN-1>}d<JOIN-2>{w</JOIN-2>}<ANSWER>e</ANSWER>",
        "0.0": "{p q\n}xx<RETURN>y</RETURN>",
        "0.1": "{r\n}zz<RETURN>w</RETURN>",
    }
    row = layout(trace)
    worker = next(segment for segment in row.segments if segment.thread == 1)
    assert (worker.visible, row.positions[worker.start]) == ((), 0)  # its sub-query alone
    seen = row.mask()[-1]
    organizer = [span for span in trace.root.spans if span.ids]
    assert row.ids[seen].tolist() == [token for span in organizer for token in span.ids]
    assert row.positions[seen].tolist() == list(range(seen.sum()))
    assert trace.answer == "e"


@pytest.mark.parametrize(
    ("root", "reasons", "text"),
    [
        (["</FORK-1>", "b<eos>"], ["</FORK-1> without <FORK-1>"], "</FORK-1>b"),
        (["<FORK-1>q</FORK-2>", "b<eos>"], ["</FORK-2> without <FORK-2>"], "<FORK-1>q</FORK-2>b"),
        (["<FORK-1> \n</FORK-1>", "b<eos>"], ["<FORK-1> without a sub-query"], "<FORK-1> \n</FORK-1>b"),
        (["<JOIN-3>", "b<eos>"], ["<JOIN-3> of a sub-query that was not forked"], "<JOIN-3>b"),
        (["<FORK-1>q</FORK-1>"] * 2, ["<FORK-1> once more"], "<FORK-1>q</FORK-1>" * 2),
        (["<FORK-1>q</FORK-1>", "<JOIN-1>", "<JOIN-1>", "b<eos>"], ["<JOIN-1> once more"], None),
    ],
)  # fmt: skip
def test_a_format_error_of_the_paper_is_recorded_and_the_organizer_goes_on(root, reasons, text):
    trace = scripted("async_think", {"0": root})
    assert [fork.reason for fork in trace.root.malformed] == reasons
    assert trace.status == "finished"
    assert text in (None, trace.text)


@pytest.mark.parametrize(
    ("worker", "result"),
    [
        ("x<RETURN>y<eos>", "y"),
        ("x<RETURN>no<RETURN>y</RETURN>", "y"),
        ("x<eos>", ""),
        ("x<RETURN>" + "y" * 99, ""),  # cut by a bound
    ],
)
def test_a_worker_returns_what_follows_its_last_return_if_it_came_to_its_end(worker, result):
    root = ["<FORK-1>q</FORK-1>", "<JOIN-1>", "b<eos>"]
    trace = scripted("async_think", {"0": root, "0.0": [worker]}, Limits(tokens_per_thread=30))
    assert f"<JOIN-1>{{{result}</JOIN-1>}}b<eos>" in written(trace)["0"]


def test_the_prompt_of_a_worker_is_an_option():
    tokens = tokenizer(["|"])
    engine = ScriptedEngine.from_texts(tokens, {"0": ["<FORK-1> q </FORK-1>"]})
    dialect = bind("async_think", tokens, worker_prompt="|user {query} |")
    (trace,) = asyncio.run(Session(engine, dialect).run([5]))
    assert tokens.decode(trace.threads[1].spans[0].ids) == "|user q |"
    with pytest.raises(InputError, match="option 'worker_prompt'='q'"):
        bind("async_think", tokens, worker_prompt="q")


class Stepped(ScriptedEngine):
    """Gives every request that runs one token a step, all in lockstep; ``steps`` counts them."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.steps = 0

    async def drive(self, done):
        while not done.is_set():
            for _ in range(50):  # all that can be done without a token is done
                await asyncio.sleep(0)
            self.steps += 1
            self.gate, gate = asyncio.Event(), self.gate
            gate.set()

    async def _sample(self, request, output):
        async for delta in super()._sample(request, output):
            await self.gate.wait()
            yield delta


def stepped(texts, limits=None):
    """The trace of threads that all sample one token a step, and how many steps it took."""
    engine = Stepped.from_texts(TOKENS, texts)

    async def run():
        engine.gate, done = asyncio.Event(), asyncio.Event()
        driver = asyncio.create_task(engine.drive(done))
        (trace,) = await Session(engine, bind("async_think", TOKENS)).run([5], limits=limits)
        done.set()
        await driver
        assert await engine.kv_is_free()
        return trace

    return asyncio.run(run()), engine.steps


@pytest.mark.parametrize(("worker", "between"), [(3, 20), (20, 3), (1, 1), (10, 10)])
def test_the_critical_path_is_how_many_steps_a_run_takes(worker, between):
    root = ["<FORK-1>q</FORK-1>", "b" * between + "<JOIN-1>", "ccc<eos>"]
    trace, steps = stepped({"0": root, "0.0": ["x" * worker + "<RETURN>y</RETURN>"]})
    assert trace.ledger.critical_path_tokens == 3 + max(between + 1, worker + 3) + 4
    assert abs(steps - trace.ledger.critical_path_tokens) <= 3  # a step or so passes at every request
    assert trace.root.forks[0].waited


def wrote(label, *spans, parent=None, forks=()):
    return Thread(
        label=label,
        parent=parent,
        spans=[Span(ids=[1] * tokens, origin="sampled") for tokens in spans],
        forks=list(forks),
        status="finished",
    )


def beside(at, joined_at, *children):
    waited = joined_at is not None
    return Fork(at=at, join_rule="message", waited=waited, joined_at=joined_at, children=list(children))


@pytest.mark.parametrize(
    ("forks", "path"),
    [
        ([beside(1, 2, 1), beside(2, 3, 2)], 10 + max(10, 30) + 10 + 10),  # 10 tokens beside each
        ([beside(1, 3, 1), beside(2, 3, 2)], 10 + max(30, 20, 10 + 5) + 10),
        ([beside(1, None, 1), beside(2, 3, 2)], 40),
        ([beside(1, 3, 1, 2)], 10 + 30 + 10),
        ([Fork(at=1, join_rule="message", children=[1]), beside(2, 3, 2)], 10 + 30 + 10 + 10 + 10),
    ],
)
def test_a_fork_beside_which_a_thread_went_on_counts_the_longer_of_the_two(forks, path):
    threads = [wrote("0", 10, 10, 10, 10, forks=forks), wrote("0.0", 30, parent=0), wrote("0.1", 5, parent=0)]
    assert critical_paths(threads)[0] == path


def test_random_runs_agree_with_the_path_that_was_kept_while_they_ran():
    joined = 0
    for seed in range(40):
        engine = chain_engine(TOKENS, "async_think", seed)
        roots = []
        start = transitions.start

        def noted(prompt, roots=roots, start=start):
            roots.append(start(prompt))
            return roots[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transitions, "start", noted)
            (trace,) = asyncio.run(Session(engine, bind("async_think", TOKENS)).run([5], limits=Limits(tokens=600)))
        assert trace.ledger.critical_path_tokens == roots[0].critical_path
        joined += sum(fork.joined_at is not None for fork in trace.root.forks)
    assert joined > 20


def test_the_organizer_samples_while_its_worker_runs():
    engine = ScriptedEngine.from_texts(
        TOKENS, {"0": ["<FORK-1>q</FORK-1>", "bbbb<JOIN-1>", "c<eos>"], "0.0": ["x" * 40]}
    )

    async def run():
        stream = Session(engine, bind("async_think", TOKENS)).stream([5])
        return [event async for event in stream]

    events = asyncio.run(run())
    started = next(n for n, event in enumerate(events) if isinstance(event, ThreadStarted) and event.label == "0.0")
    ended = next(n for n, event in enumerate(events) if isinstance(event, ThreadEnded) and event.label == "0.0")
    labels = [event.label for event in events[started:ended] if isinstance(event, TokensSampled)]
    assert {"0", "0.0"} == {*labels}
    assert len([*itertools.groupby(labels)]) > 4  # in turns


def test_a_worker_that_is_not_joined_is_cancelled_and_is_not_on_the_critical_path():
    engine = ScriptedEngine.from_texts(
        TOKENS, {"0": ["<FORK-1>q</FORK-1>", "b<ANSWER>c</ANSWER>"], "0.0": ["x" * 3000]}, delay_s=lambda request: 0
    )
    (trace,) = asyncio.run(Session(engine, bind("async_think", TOKENS)).run([5]))
    worker = trace.threads[1]
    assert (worker.status, worker.stop_reason) == ("cancelled", "thread 0 ended before it joined")
    assert (trace.status, trace.answer) == ("finished", "c")
    assert not trace.root.forks[0].waited
    assert trace.ledger.critical_path_tokens == trace.root.tokens("sampled")
    assert asyncio.run(engine.kv_is_free())
    assert not trace.errors


@pytest.mark.parametrize("tokens", [10, 20, 40, 60, 200])
def test_a_bound_on_all_tokens_is_never_passed_and_comes_back_at_the_join(tokens):
    texts = {**BOTH, "0": [*FORK_BOTH[:4], "e" * 300]}
    trace = scripted("async_think", texts, Limits(tokens=tokens))
    assert trace.ledger.sampled_tokens <= tokens
    if len(trace.root.forks) == 2 and trace.root.forks[1].waited:
        assert trace.ledger.sampled_tokens == tokens


def test_forks_are_left_to_the_organizer_where_its_workers_may_not_fork():
    queries = [f"<FORK-{i}>q</FORK-{i}>" for i in range(1, 9)]
    assert scripted("async_think", {"0": [*queries, "b<eos>"]}, Limits(forks=8)).ledger.forks == 8
    trace = scripted("async_think", {"0": [*queries, "b<eos>"]}, Limits(forks=7))
    assert (trace.status, trace.stop_reason) == ("length", "limits.forks=7")


@pytest.mark.parametrize("reason", ["cancelled by the caller", "limits.deadline_s=0.2"])
def test_a_cancelled_trace_stops_an_organizer_that_waits_and_its_worker(reason):
    engine = ScriptedEngine.from_texts(
        TOKENS,
        {"0": ["<FORK-1>q</FORK-1>", "<JOIN-1>"], "0.0": ["x" * 99]},
        delay_s=lambda request: float("inf") if request.label == "0.0" else 0,
    )

    async def run():
        session = Session(engine, bind("async_think", TOKENS))
        limits = Limits(deadline_s=0.2) if "deadline" in reason else None
        async for event in session.stream([5], limits=limits):
            if isinstance(event, ThreadStarted) and event.label == "0.0" and not limits:
                await session.cancel(event.trace)
        return event.trace

    trace = asyncio.run(run())
    assert {(thread.status, thread.stop_reason) for thread in trace.threads} == {("cancelled", reason)}
    assert asyncio.run(engine.kv_is_free())


def test_what_an_engine_raises_under_a_worker_is_the_status_of_the_worker():
    def next_tokens(request, sampled):
        if request.label == "0.0":
            raise ValueError("no")
        return TOKENS.encode(
            "<FORK-1>q</FORK-1>" if not request.first_draw else "<JOIN-1>" if len(sampled) < 1 else "<eos>"
        )

    engine = ScriptedEngine(TOKENS, next_tokens)
    (trace,) = asyncio.run(Session(engine, bind("async_think", TOKENS)).run([5], limits=Limits(tokens=9)))
    assert [thread.status for thread in trace.threads] == ["length", "failed"]
    assert "<JOIN-1>{</JOIN-1>}" in written(trace)["0"]


def test_flat_text_has_a_worker_where_it_was_forked():
    trace = scripted("async_think", BOTH)
    ids, dialect = flatten(trace), bind("async_think", TOKENS)
    text = TOKENS.decode(ids)
    assert text.startswith("a<FORK-1>p q</FORK-1>p q\nxx<RETURN>y</RETURN>b<FORK-2>r</FORK-2>r\nzz<RETURN>w</RETURN>c")
    assert problems(dialect, TOKENS, TOKENS.encode("ab"), ids) == []
    assert [thread.text for thread in parse(dialect, TOKENS, TOKENS.encode("ab"), ids).threads] == [
        thread.text for thread in trace.threads
    ]


def test_a_thread_cannot_go_on_beside_a_fork_whose_tokens_it_will_see():
    root = transitions.start([5])
    with pytest.raises(ValueError, match="cannot go on beside a fork that joins by graft under the key '1'"):
        transitions.fork(root, "graft", True, key="1")
    transitions.fork(root, "message", True, key="1")
    with pytest.raises(ValueError, match="under the key '1'"):
        transitions.fork(root, "message", True, key="1")
