"""`ParallelLLM` where people use it: plain code, a notebook's running loop, worker processes, several at once, and
scripts that end or are interrupted whenever they like."""

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from parallel_reason import EngineError, InputError, ParallelLLM, SpawnJoin
from parallel_reason.engines import EMBEDDED
from parallel_reason.runtime.events import ThreadStarted, TraceFinished
from tests.doors import INTERRUPTED, NEVER_CLOSED, PROMPT, SHORT, run_and_send, run_in_worker, said_in_a_forked_process


@pytest.fixture(scope="module")
def llm():
    with ParallelLLM(EMBEDDED, engine="torch", dialect=SpawnJoin, dialect_options={"join_on": "all"}) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def text(llm):
    """What the model writes, greedily."""
    return llm.generate(PROMPT, limits=SHORT)[0].text


# Loops.


def test_in_the_running_loop_of_a_notebook_every_kind_of_call_works(llm, text):
    async def cell():
        [blocking] = llm.generate(PROMPT, limits=SHORT)
        [awaited] = await llm.agenerate(PROMPT, limits=SHORT)
        streamed = list(llm.stream_sync(PROMPT, limits=SHORT))[-1].trace
        async for event in llm.stream(PROMPT, limits=SHORT):
            last = event
        return [trace.text for trace in (blocking, awaited, streamed, last.trace)]

    assert asyncio.run(cell()) == [text] * 4


def test_a_stream_in_plain_code_yields_what_an_asyncio_one_does(llm):
    async def collect():
        return [event async for event in llm.stream(PROMPT, limits=SHORT)]

    def shape(events):
        return [(type(event), getattr(event, "label", None), getattr(event, "text", None)) for event in events]

    events = list(llm.stream_sync(PROMPT, limits=SHORT, task="one"))
    assert isinstance(events[0], ThreadStarted)
    assert isinstance(events[-1], TraceFinished)
    assert events[-1].trace.task == "one"
    assert shape(events) == shape(asyncio.run(collect()))


def test_leaving_a_stream_in_plain_code_cancels_the_run(llm):
    given = 0
    generate = llm.engine.generate

    async def counted(request, on_tokens=None):
        nonlocal given
        output = await generate(request, on_tokens)
        given += len(output.ids)
        return output

    [whole] = llm.generate(PROMPT)
    llm.engine.generate = counted
    try:
        for _ in llm.stream_sync(PROMPT):
            break
        deadline = time.monotonic() + 60
        while not llm.kv_is_free() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        del llm.engine.generate
    assert given < whole.ledger.sampled_tokens / 4


def test_what_is_wrong_with_a_stream_in_plain_code_is_raised(llm):
    with pytest.raises(InputError, match="empty"):
        list(llm.stream_sync(""))
    with pytest.raises(InputError, match="n=2"):
        list(llm.stream_sync(PROMPT, {"n": 2}))


def test_a_progress_bar_counts_traces(llm, capsys):
    seen = []
    skip = {(PROMPT, 0): None}
    traces = llm.generate(PROMPT, {"n": 4}, SHORT, use_tqdm=True, on_trace=seen.append, skip=skip)
    assert len(seen) == len(traces) == 3
    assert "3/3" in capsys.readouterr().err
    llm.generate(PROMPT, limits=SHORT)
    assert capsys.readouterr().err == ""


# Several.


def test_models_in_one_process_run_at_once(llm, text, countdown):
    async def all_at_once(*models):
        return await asyncio.gather(*(model.agenerate(PROMPT, limits=SHORT) for model in models))

    with ParallelLLM(engine="torch") as second:
        results = asyncio.run(all_at_once(llm, second, countdown))
    assert [trace.text for [trace] in results] == [text] * 3


def test_another_dialect_is_another_face_over_the_same_engine(llm, text):
    with llm.with_dialect("none") as plain:
        assert plain.engine is llm.engine
        [trace] = plain.generate(PROMPT, limits=SHORT)
        assert (trace.dialect, len(trace.threads)) == ("none", 1)
    with pytest.raises(EngineError, match="closed"):
        plain.generate(PROMPT)
    assert llm.generate(PROMPT, limits=SHORT)[0].text == text


def test_an_engine_lives_as_long_as_a_face_over_it_and_ends_with_the_last():
    def loops():
        gc.collect()
        return sum(thread.name == "parallel-reason" for thread in threading.enumerate())

    before = loops()
    plain = ParallelLLM(engine="torch").with_dialect("none")
    assert plain.generate(PROMPT, limits=SHORT)[0].status == "length"
    assert loops() == before + 1
    del plain
    assert loops() == before


def test_closing_the_face_that_started_the_engine_closes_the_others():
    first = ParallelLLM(engine="torch")
    plain = first.with_dialect("none")
    first.close()
    for call in (lambda: plain.generate(PROMPT), lambda: list(plain.stream_sync(PROMPT)), lambda: plain.score([1, 2])):
        with pytest.raises(EngineError, match="closed"):
            call()
    plain.close()


# Processes.


def test_worker_processes_run_models_of_their_own(text):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=run_and_send, args=("torch", there))
    process.start()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(run_in_worker, "vllm").result() == text
    assert here.recv() == text
    process.join()
    assert process.exitcode == 0


def test_a_process_that_was_forked_off_is_told_that_the_model_is_not_there(llm):
    assert said_in_a_forked_process(llm) == 7


@pytest.mark.parametrize("engine", ["torch", "vllm"])
def test_a_script_that_never_closes_ends_in_silence_and_one_that_is_killed_leaves_no_process(engine, tmp_path):
    import psutil

    script = tmp_path / "script.py"
    script.write_text(NEVER_CLOSED)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    ends, killed = (subprocess.Popen([sys.executable, script, engine], text=True, **pipes) for _ in range(2))
    assert [one.stdout.readline() for one in (ends, killed)] == ["ANSWER length\n"] * 2
    below = [child for one in (ends, killed) for child in psutil.Process(one.pid).children(recursive=True)]
    started = [child for child in below if "VLLM" in child.name()]
    assert len(started) > 2 or engine == "torch"
    killed.kill()
    said, errors = ends.communicate("\n", timeout=100)
    assert (said, errors, ends.returncode) == ("", "", 0)
    killed.communicate()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []


@pytest.mark.parametrize("engine", ["torch", "vllm"])
def test_ctrl_c_while_loading_kills_what_was_started(engine):
    import psutil

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    script = subprocess.Popen([sys.executable, "-c", INTERRUPTED, engine], text=True, **pipes)
    assert script.stdout.readline() == "READY\n"
    children = []
    if engine == "vllm":
        while not children:
            time.sleep(0.1)
            below = psutil.Process(script.pid).children()
            children = [one for one in below if "resource_tracker" not in str(one.cmdline())]
    else:
        time.sleep(0.5)
    os.kill(script.pid, signal.SIGINT)
    said, errors = script.communicate(timeout=100)
    assert (said, errors) == ("INTERRUPTED []\n", "")
    assert not any(child.is_running() for child in children)
