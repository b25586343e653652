"""What actors and a pool do when engines come and go: real sessions on the scripted engine, without Ray.

The actors are objects in this process, so that their ends come at moments that processes do not let one choose;
`tests/test_fleet.py` has real ones.
"""

import asyncio
import importlib
import io
import random
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from parallel_reason import EngineError, Fleet, InputError, Limits, SamplingParams, dialects
from parallel_reason.engines import EMBEDDED
from parallel_reason.engines.models import load_tokenizer
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.fleet import actors, session, worker
from parallel_reason.fleet.member import Gone, Member
from parallel_reason.fleet.session import FleetSession
from parallel_reason.runtime.session import Session
from rl.progress import ShownProgress
from tests.fleets import tokens

TOKENIZER = load_tokenizer(str(EMBEDDED), "")
PROMPTS = ["22,26,31,53=27", "1,2,3,4=10", "5,6,7,8=26", "9,8,7,6=30"]
SAMPLING = SamplingParams(temperature=1.0, n=2, seed=5)


def next_tokens(request, sampled):
    """Noise that the seed decides; 25 tokens, then the end."""
    place = request.first_draw + len(sampled)
    if place >= 25:
        return [TOKENIZER.eos_token_id]
    return [random.Random(f"{request.seed}/{place}/{request.ids[:3]}").randrange(20, 60)]


async def start(model=None, *, limits=None, traces_at_once=256, **options):
    engine = ScriptedEngine(TOKENIZER, next_tokens, delay_s=lambda request: 0.005)

    async def update_weights(folder):
        if folder == "none":
            raise InputError("there is no model")
        engine.policy_version += 1

    engine.update_weights = update_weights
    return Session(engine, dialects.bind("spawn_join", TOKENIZER), limits=limits, traces_at_once=traces_at_once)


class Actor:
    """A `Member` whose worker is an object here; ``stopped`` keeps it from answering."""

    def __init__(self, number, fleet, group, name):
        self.number, self.name, self.node = number, f"{name}/engine-{number}", "here"
        self.generation, self.pid, self.lost = 0, 0, False
        self.create()

    def create(self):
        self.worker, self.calls, self.stopped = worker.EngineWorker(), set(), False

    async def settled(self):
        await asyncio.sleep(0.02)
        self.pid += 1

    async def call(self, method, *arguments, within_s=None):
        async def answer():
            while self.stopped:
                await asyncio.sleep(0.02)
            return await getattr(self.worker, method)(*arguments)

        task = self.running(answer())
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.shield(task)
        except worker.NotStartedError:
            raise Gone("fresh", ran=False) from None
        except asyncio.CancelledError:
            if task.cancelled():
                raise Gone("killed") from None
            raise

    async def stream(self, job):
        items = asyncio.Queue()

        async def forward():
            async for item in self.worker.stream(job):
                items.put_nowait(item)

        task = self.running(forward())
        task.add_done_callback(lambda _: items.put_nowait(None))
        while (item := await items.get()) is not None:
            yield item
        if task.cancelled():
            raise Gone("killed")

    def running(self, work):
        task = asyncio.ensure_future(work)
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)
        return task

    def kill(self, *, restart):
        for task in list(self.calls):
            task.cancel()
        if restart:
            self.create()


class NoMetrics:
    def __init__(self, name):
        pass

    def __getattr__(self, name):
        return lambda *values: None


def exits(code):
    """An actor ends itself."""
    raise asyncio.CancelledError


async def nowhere(*of, **options):
    return None


@pytest.fixture
def fleets(monkeypatch):
    """``fleets(work)`` runs ``work(one, fleet, actors)``: a session, and a fleet of two alike."""
    monkeypatch.setattr(worker.Session, "start", start)
    monkeypatch.setattr(actors, "Member", Actor)
    monkeypatch.setattr(actors, "FleetMetrics", NoMetrics)
    monkeypatch.setattr(actors, "place", nowhere)
    monkeypatch.setattr(session, "connect", lambda fleet: "given")
    monkeypatch.setattr(worker.os, "_exit", exits)
    groups = importlib.import_module("ray.util.placement_group")
    monkeypatch.setattr(groups, "remove_placement_group", lambda group: None)

    async def within(work):
        one = await start(limits=Limits())
        settings = Fleet(engines=2, traces_per_engine=3, check_s=0.1, hung_after_s=1)
        fleet = await FleetSession.start(limits=Limits(), fleet=settings)
        try:
            await work(one, fleet, fleet.engine.pool.actors)
        finally:
            await fleet.close()
            await one.close()

    return lambda work: asyncio.run(asyncio.wait_for(within(work), 60))


def once(count, act):
    """An ``on_trace`` that acts when so many traces are back."""
    seen = []

    def on_trace(trace):
        seen.append(trace)
        if len(seen) == count:
            act()

    return on_trace


async def all_serve(actors):
    while len(actors.serving) < 2:
        await asyncio.sleep(0.02)


def test_traces_of_an_engine_that_ends_or_hangs_come_back_once(fleets):
    async def work(one, fleet, actors):
        expected = await one.run(PROMPTS, SAMPLING)
        assert tokens(await fleet.run(PROMPTS, SAMPLING)) == tokens(expected)

        def stop():
            actors.members[1].stopped = True

        for count, fault in ((1, lambda: actors.members[0].kill(restart=True)), (2, stop)):
            traces = await fleet.run(PROMPTS, SAMPLING, on_trace=once(count, fault))
            assert tokens(traces) == tokens(expected)
            assert len({trace.id for trace in traces}) == len(traces)
            await all_serve(actors)
        assert actors.restarts == 2
        assert await fleet.kv_is_free()

    fleets(work)


def test_each_engine_is_seen_with_what_it_does_and_did(fleets):
    async def work(one, fleet, actors):
        seen = []

        async def watch():
            while True:
                seen.append(fleet.engines())
                await asyncio.sleep(0.003)

        watching = asyncio.ensure_future(watch())
        traces = await fleet.run(PROMPTS, SAMPLING, on_trace=once(2, lambda: actors.members[0].kill(restart=True)))
        await all_serve(actors)
        watching.cancel()
        first, second = fleet.engines()
        assert [engine.name for engine in (first, second)] == [member.name for member in actors.members]
        assert (first.state, first.restarts, second.restarts) == ("serves", 1, 0)
        assert first.finished + second.finished == len(traces)
        assert first.sampled_tokens + second.sampled_tokens == sum(trace.ledger.sampled_tokens for trace in traces)
        assert first.traces == second.traces == 0
        assert max(engine.traces for engines in seen for engine in engines) == 3
        assert "starts" in {engines[0].state for engines in seen}
        console = Console(file=io.StringIO(), force_terminal=True, width=100)
        shown = ShownProgress(console, fleet.engines)
        shown.on_train_begin(None, SimpleNamespace(max_steps=5, global_step=0), None)
        shown.close()
        row = f"{first.name}.*serves.*{first.finished}.*{first.sampled_tokens}.*1"
        assert re.search(row, console.file.getvalue())

    fleets(work)


def test_weights_come_before_traces_and_a_failed_change_is_taken_back(fleets):
    async def work(one, fleet, actors):
        await fleet.update_weights(str(EMBEDDED))
        actors.members[0].kill(restart=True)
        traces = await fleet.run(PROMPTS, SAMPLING)
        await all_serve(actors)
        with pytest.raises(InputError, match="there is no model"):
            await fleet.update_weights("none")
        traces += await fleet.run(PROMPTS, SAMPLING)
        await all_serve(actors)
        assert tokens(traces) == 2 * tokens(await one.run(PROMPTS, SAMPLING))
        spans = [span for trace in traces for thread in trace.threads for span in thread.spans]
        assert {span.policy_version for span in spans} == {None, 1}

    fleets(work)


def test_what_is_cancelled_ends_and_holds_nothing(fleets):
    async def work(one, fleet, actors):
        call = asyncio.ensure_future(fleet.run(PROMPTS, SAMPLING))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await fleet.kv_is_free()
        async for event in fleet.stream(PROMPTS[0]):
            if event.__class__.__name__ == "ThreadStarted":
                await fleet.cancel(event.trace)
        assert event.trace.status == "cancelled"

    fleets(work)


def test_a_stream_that_lost_its_engine_says_so(fleets):
    async def work(one, fleet, actors):
        events = fleet.stream(PROMPTS[0])
        await anext(events)
        (busy,) = (each for each in actors.members if fleet.engine.pool.traces_on(each.number))
        busy.kill(restart=True)
        with pytest.raises(EngineError, match="died after it had streamed events"):
            [event async for event in events]

    fleets(work)


def test_a_fleet_whose_engines_do_not_start_again_ends_what_waits(fleets, monkeypatch):
    async def broken(*of, **options):
        raise EngineError("no memory")

    async def work(one, fleet, actors):
        monkeypatch.setattr(worker.Session, "start", broken)
        for member in actors.members:
            member.kill(restart=True)
        traces = await fleet.run(PROMPTS)
        assert {trace.status for trace in traces} == {"failed"}
        assert "has no engine left" in traces[0].errors[0]
        assert {trace.status for trace in await fleet.run(PROMPTS)} == {"failed"}
        assert actors.restarts == 2

    fleets(work)


def test_a_call_that_is_cancelled_as_its_answer_comes_is_cancelled():
    """Else the health check of a fleet that is closed goes on, and closing waits for it for ever."""

    async def work():
        answer = asyncio.get_running_loop().create_future()
        real = Member.__new__(Member)
        real._actor = SimpleNamespace(check=SimpleNamespace(remote=lambda: answer))
        calling = asyncio.ensure_future(real.call("check", within_s=5))
        await asyncio.sleep(0.01)
        answer.set_result(None)
        calling.cancel()
        await asyncio.wait([calling])
        return calling.cancelled()

    assert asyncio.run(work())
