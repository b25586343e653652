"""`ParallelLLM` at odd times: inside its own callback, after `close`, and while other calls run."""

import asyncio
import threading

import pytest

from parallel_reason import CallbackError, EngineError, InputError, Limits, ModelError, ParallelLLM, SamplingParams
from parallel_reason.tasks.countdown import held_out

PROBLEM = str(held_out(1)[0])
SHORT = Limits(tokens=8)


@pytest.fixture
def llm():
    with ParallelLLM(engine="torch") as loaded:
        yield loaded


def test_generate_inside_a_callback_says_why_not(llm):
    with pytest.raises(CallbackError, match="would wait for itself") as caught:
        llm.generate(PROBLEM, limits=SHORT, on_trace=lambda trace: llm.generate(PROBLEM))
    assert isinstance(caught.value.__cause__, InputError)
    assert [trace.stop_reason for trace in caught.value.traces] == ["limits.tokens=8"]
    with pytest.raises(CallbackError, match="would wait for itself"):
        llm.generate(PROBLEM, limits=SHORT, on_trace=lambda trace: llm.close())
    assert len(llm.generate((PROBLEM, PROBLEM), limits=SHORT)) == 2


def test_after_close_every_call_says_closed():
    llm = ParallelLLM(engine="torch")
    llm.close()
    llm.close()
    for call in (lambda: llm.generate(PROBLEM), lambda: llm.score([1, 2]), lambda: asyncio.run(llm.agenerate(PROBLEM))):
        with pytest.raises(EngineError, match="closed"):
            call()


def test_closing_ends_every_call_under_way_with_an_engine_error():
    llm, errors = ParallelLLM(engine="torch"), []

    def call():
        try:
            llm.generate([PROBLEM] * 40)
        except EngineError as error:
            errors.append(error)

    async def many():
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(llm.agenerate([PROBLEM] * 40))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(llm.close)

    thread = threading.Thread(target=call)
    thread.start()
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(many())
    thread.join(20)
    assert not thread.is_alive()
    errors += caught.value.exceptions
    assert [type(error) for error in errors] == [EngineError] * len(errors)
    assert len(errors) >= 2
    assert all("closed" in str(error) for error in errors)


def test_scores_are_the_models_and_a_seeded_call_repeats_in_another_batch(llm):
    scores = llm.score(llm.tokenizer.encode(PROBLEM))
    assert len(scores) == len(llm.tokenizer.encode(PROBLEM)) - 1
    assert all(score <= 0 for score in scores)
    sampling = SamplingParams(temperature=1.0, seed=5, n=2)
    limits = Limits(tokens=90)
    alone = llm.generate(PROBLEM, sampling, limits)
    among = llm.generate([str(problem) for problem in held_out(4)], sampling, limits)
    assert [trace.text for trace in among[:2]] == [trace.text for trace in alone]
    assert [[thread.text for thread in trace.threads] for trace in among[:2]] == [
        [thread.text for thread in trace.threads] for trace in alone
    ]


def test_weights_that_are_not_there_are_named_and_the_old_ones_stay(llm):
    with pytest.raises(ModelError, match="no model '/no/model'"):
        llm.update_weights("/no/model")
    assert llm.generate(PROBLEM, limits=SHORT)[0].ledger.sampled_tokens == 8
