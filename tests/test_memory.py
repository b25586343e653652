"""Who gets KV blocks, and when: made-up requests, and a burst of forks on an engine that is too small for it."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from parallel_reason import ParallelLLM
from parallel_reason.countdown import held_out
from parallel_reason.line import Line
from parallel_reason.memory import Memory, Share
from parallel_reason.trace import Thread

BLOCKS = 40
AGES = 6
REQUESTS = st.lists(
    st.tuples(st.integers(0, AGES - 1), st.integers(1, 500), st.integers(0, 200)), min_size=1, max_size=30
)


def line(tokens):
    made = Line(Thread(label="0"), depth=0)
    made.context = [1] * tokens
    return made


@given(REQUESTS, st.sets(st.integers(0, 29)), st.sampled_from([8, 32]), st.randoms(use_true_random=False))
def test_all_that_is_not_refused_gets_room_and_no_more_is_held_than_there_is(requests, unwanted, block_size, rng):
    memory = Memory(BLOCKS, block_size, preempts=False)
    shares = [Share(memory, age) for age in range(AGES)]
    lines = [line(tokens) for _, tokens, _ in requests]
    ran, refused = set(), set()

    async def run(number, age, sampled):
        mine = lines[number]
        async with shares[age].room(mine, sampled) as granted:
            (ran if granted else refused).add(number)
            if granted:
                assert memory.held <= BLOCKS or memory.running == 1
                await asyncio.sleep(0)
                mine.context += [1] * rng.randint(0, sampled)
        if not granted or rng.random() < 0.9:
            shares[age].give_back(mine)

    async def all_at_once():
        runs = [asyncio.create_task(run(number, age, sampled)) for number, (age, _, sampled) in enumerate(requests)]
        await asyncio.sleep(0)
        for number in unwanted & set(range(len(requests))):
            shares[requests[number][0]].refuse(lines[number])
        await asyncio.wait_for(asyncio.gather(*runs), 10)

    asyncio.run(all_at_once())
    assert ran | refused == set(range(len(requests)))
    assert refused <= unwanted
    assert memory.running == 0
    assert memory.held == sum(share.held for share in shares) == sum(mine.blocks for mine in lines)
    assert all(mine.blocks in (0, -(-len(mine.context) // block_size)) for mine in lines)
    for share in shares:
        share.close()
    assert memory.held == 0


def test_the_oldest_trace_goes_first_and_one_that_is_cancelled_gives_back_what_it_was_promised():
    memory, order = Memory(10, 1), []

    async def run(age, tokens):
        share = Share(memory, age)
        async with share.room(line(tokens), 0):
            order.append(age)
        share.close()

    async def check():
        first = Share(memory, 0)
        async with first.room(line(10), 0):
            runs = [asyncio.create_task(run(age, 4)) for age in (3, 1, 4, 2)]
            await asyncio.sleep(0)
            assert memory.running == 1
        first.close()
        assert memory.running == 2  # both were let in, and have not run yet
        runs[1].cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    asyncio.run(check())
    assert order == [2, 3, 4]


def test_children_share_the_full_blocks_of_their_parent():
    memory = Memory(None, 32)
    assert memory.size(100) == 4
    assert memory.size(100, shared=70) == 2
    assert memory.size(96, shared=96) == 0


def test_a_burst_of_forks_queues_on_an_engine_that_it_would_fill():
    prompts = [str(problem) for problem in held_out(4)]
    with ParallelLLM(engine="torch", kv_tokens=2500) as small, ParallelLLM(engine="torch") as large:
        traces = small.generate(prompts)
        roomy = large.generate(prompts)
        assert [trace.text for trace in traces] == [trace.text for trace in roomy]
        assert {trace.status for trace in traces} == {"finished"}
        assert all(trace.ledger.kv_blocks for trace in traces)
        assert max(trace.ledger.kv_blocks for trace in roomy) > 2500
        assert (small.engine.memory.held, small.engine.memory.running) == (0, 0)
        assert small.run(small.engine.kv_is_free())
