"""Who gets KV blocks, and when: made-up requests, and a burst of forks on an engine that is too small for it."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from parallel_reason import ParallelLLM
from parallel_reason.engines.admission import Admission, ThreadBlocks, TraceBlocks
from parallel_reason.tasks.countdown import held_out

BLOCKS = 40
AGES = 6
REQUESTS = st.lists(
    st.tuples(st.integers(0, AGES - 1), st.integers(1, 500), st.integers(0, 200)), min_size=1, max_size=30
)


@given(REQUESTS, st.sets(st.integers(0, 29)), st.sampled_from([8, 32]), st.randoms(use_true_random=False))
def test_all_that_is_not_refused_gets_room_and_no_more_is_held_than_there_is(requests, unwanted, block_size, rng):
    admission = Admission(BLOCKS, block_size, preempts=False)
    traces = [TraceBlocks(admission, age) for age in range(AGES)]
    threads = [ThreadBlocks() for _ in requests]
    lengths = [context for _, context, _ in requests]
    ran, refused = set(), set()

    async def run(number, age, new):
        mine = threads[number]
        async with traces[age].admitted(mine, lengths[number], admission.expected_tokens(0, new)) as admitted:
            (ran if admitted.granted else refused).add(number)
            if admitted.granted:
                assert admission.held <= BLOCKS or admission.running == 1
                await asyncio.sleep(0)
                admitted.context = lengths[number] = lengths[number] + rng.randint(0, new)
        if not admitted.granted or rng.random() < 0.9:
            traces[age].give_back(mine)

    async def all_at_once():
        runs = [asyncio.create_task(run(number, age, new)) for number, (age, _, new) in enumerate(requests)]
        await asyncio.sleep(0)
        for number in unwanted & set(range(len(requests))):
            threads[number].refuse()
        await asyncio.wait_for(asyncio.gather(*runs), 10)

    asyncio.run(all_at_once())
    assert ran | refused == set(range(len(requests)))
    assert refused <= unwanted
    assert admission.running == 0
    assert admission.held == sum(trace.held for trace in traces) == sum(mine.blocks for mine in threads)
    sizes = [-(-length // block_size) for length in lengths]
    assert all(mine.blocks in (0, size) for mine, size in zip(threads, sizes, strict=True))
    for trace in traces:
        trace.close()
    assert admission.held == 0


def test_the_oldest_trace_goes_first_and_one_that_is_cancelled_gives_back_what_it_was_promised():
    admission, order = Admission(10, 1), []

    async def run(age, tokens):
        trace = TraceBlocks(admission, age)
        async with trace.admitted(ThreadBlocks(), tokens, 0):
            order.append(age)
        trace.close()

    async def check():
        first = TraceBlocks(admission, 0)
        async with first.admitted(ThreadBlocks(), 10, 0):
            runs = [asyncio.create_task(run(age, 4)) for age in (3, 1, 4, 2)]
            await asyncio.sleep(0)
            assert admission.running == 1
        first.close()
        assert admission.running == 2  # both were let in, and have not run yet
        runs[1].cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    asyncio.run(check())
    assert order == [2, 3, 4]


def test_children_share_the_full_blocks_of_their_parent():
    admission = Admission(None, 32)
    assert admission.size(100) == 4
    assert admission.size(100, shared=70) == 2
    assert admission.size(96, shared=96) == 0


def test_a_burst_of_forks_queues_on_an_engine_that_it_would_fill():
    prompts = [str(problem) for problem in held_out(4)]
    with ParallelLLM(engine="torch", kv_tokens=2500) as small, ParallelLLM(engine="torch") as large:
        traces = small.generate(prompts)
        roomy = large.generate(prompts)
        assert [trace.text for trace in traces] == [trace.text for trace in roomy]
        assert {trace.status for trace in traces} == {"finished"}
        assert all(trace.ledger.kv_blocks for trace in traces)
        assert max(trace.ledger.kv_blocks for trace in roomy) > 2500
        assert (small.engine.admission.held, small.engine.admission.running) == (0, 0)
        assert small.kv_is_free()
