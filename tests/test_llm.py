"""`ParallelLLM`: what a user types."""

import asyncio
import subprocess
import sys
import time

import pytest

import parallel_reason
from parallel_reason import Limits, ParallelLLM, SamplingParams
from parallel_reason.engines import EMBEDDED
from parallel_reason.errors import EngineError, InputError, ModelError
from parallel_reason.exactness import BOUND, compare, load_reference
from parallel_reason.runtime.events import ForkJoined, ThreadEnded, ThreadStarted, TokensSampled, TraceFinished
from parallel_reason.tasks.countdown import held_out, solves
from tests.other_weights import other_weights

PROBLEMS = held_out(12)


def test_every_call_gives_a_list_of_traces_in_order(countdown):
    [trace] = countdown.generate(str(PROBLEMS[0]))
    assert trace.text.endswith(trace.answer)
    traces = countdown.generate([str(problem) for problem in PROBLEMS])
    assert [t.prompt for t in traces] == [str(problem) for problem in PROBLEMS]
    assert [t.prompt_index for t in traces] == list(range(len(PROBLEMS)))
    assert traces[0].text == trace.text
    assert [t.text for t in countdown.generate(tuple(str(problem) for problem in PROBLEMS[:2]))] == [
        t.text for t in traces[:2]
    ]


def test_n_samples_come_prompt_by_prompt_and_repeat_with_their_seed(countdown):
    prompts = [str(problem) for problem in PROBLEMS[:2]]
    sampling = SamplingParams(temperature=1.0, n=3, seed=0)
    traces = countdown.generate(prompts, sampling)
    assert [t.prompt for t in traces] == [prompts[0]] * 3 + [prompts[1]] * 3
    assert [(t.prompt_index, t.sample) for t in traces] == [(p, s) for p in range(2) for s in range(3)]
    assert len({t.text for t in traces}) > 2
    assert len({t.group for t in traces}) == 2
    assert [t.text for t in countdown.generate(prompts, sampling)] == [t.text for t in traces]


def test_token_ids_and_text_are_the_same_prompt(countdown):
    text = str(PROBLEMS[0])
    ids = countdown.engine.tokenizer.encode(text)
    [by_ids], [by_text] = countdown.generate(ids), countdown.generate(text)
    assert by_ids.text == by_text.text
    assert countdown.generate([ids, text])[0].prompt == text


def test_chat_messages_go_through_the_models_own_template(soup):
    [trace] = soup.generate([{"role": "user", "content": "acd"}], limits=Limits(tokens=5))
    assert trace.prompt == "acdb"
    assert trace.messages == [{"role": "user", "content": "acd"}]
    assert trace.prompt_ids == trace.root.spans[0].ids == soup.engine.tokenizer.encode("acdb")


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ([], None),
        ("1,2,x=3", "no token for a part of the prompt '1,2,x=3'"),
        ([5, 99999], "token id 99999 is outside the vocabulary"),
        ([{"role": "user", "content": "hi"}], "no chat template"),
        (5, "not 5"),
        ("1," * 2000 + "1=5", "4003 tokens and the window 1024"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_named(countdown, prompt, says):
    if says is None:
        assert countdown.generate(prompt) == []
        return
    with pytest.raises(InputError, match=says):
        countdown.generate(prompt)


def test_sampling_parameters_of_vllm_are_refused_as_their_defaults_are_others(countdown):
    import vllm

    with pytest.raises(InputError, match=r"a SamplingParams of parallel_reason .*, a SamplingParams of vllm") as caught:
        countdown.generate(str(PROBLEMS[0]), vllm.SamplingParams())
    assert "\n" not in str(caught.value)


def test_one_bad_prompt_starts_no_trace(countdown):
    finished = []
    with pytest.raises(InputError):
        countdown.generate([str(PROBLEMS[0]), ""], on_trace=finished.append)
    assert finished == []
    assert countdown.kv_is_free()


def test_traces_are_reported_as_they_finish(countdown):
    finished = []
    traces = countdown.generate([str(p) for p in PROBLEMS], on_trace=finished.append)
    assert sorted(finished, key=lambda trace: trace.prompt_index) == traces


def test_a_stream_is_enough_to_draw_the_run(countdown):
    async def collect():
        return [event async for event in countdown.stream(str(PROBLEMS[0]))]

    events = asyncio.run(collect())
    trace = events[-1].trace
    assert isinstance(events[-1], TraceFinished)
    assert {e.label for e in events if isinstance(e, ThreadStarted)} == {t.label for t in trace.threads}
    ended = {e.label: e.status for e in events if isinstance(e, ThreadEnded)}
    assert ended == {thread.label: thread.status for thread in trace.threads}
    assert sum(isinstance(e, ForkJoined) for e in events) == trace.ledger.forks
    for thread in trace.threads:
        pieces = [e for e in events if isinstance(e, TokensSampled) and e.label == thread.label]
        sampled = [token for span in thread.spans if span.origin == "sampled" for token in span.ids]
        assert [token for piece in pieces for token in piece.ids] == sampled
        assert len(pieces) > len(sampled) / 3
    assert trace.text == countdown.generate(str(PROBLEMS[0]))[0].text


def test_leaving_a_stream_early_cancels_the_run(countdown):
    """The engine is asked how many tokens it gave: a run that simply finishes gives as many as a whole one."""
    given = 0
    generate = countdown.engine.generate

    async def counted(request, on_tokens=None):
        nonlocal given
        output = await generate(request, on_tokens)
        given += len(output.ids)
        return output

    async def leave():
        async for event in countdown.stream(str(PROBLEMS[0])):
            if isinstance(event, TokensSampled):
                break

    [whole] = countdown.generate(str(PROBLEMS[0]))
    countdown.engine.generate = counted
    try:
        asyncio.run(leave())
        time.sleep(3)
    finally:
        del countdown.engine.generate
    assert given < whole.ledger.sampled_tokens / 4
    assert countdown.kv_is_free()


def test_a_stream_of_a_bad_prompt_raises(countdown):
    async def read():
        async for _ in countdown.stream(""):
            pass

    with pytest.raises(InputError, match="empty"):
        asyncio.run(read())


def test_the_async_twin_runs_beside_other_work(countdown):
    async def both():
        return await asyncio.gather(countdown.agenerate(str(PROBLEMS[0])), countdown.agenerate([str(PROBLEMS[1])]))

    [one], [other] = asyncio.run(both())
    assert (one.prompt, other.prompt) == (str(PROBLEMS[0]), str(PROBLEMS[1]))


def test_the_embedded_model_solves_problems_it_has_never_seen(countdown):
    problems = held_out(200)[100:]
    traces = countdown.generate([str(problem) for problem in problems])
    assert sum(solves(t.answer, p) for t, p in zip(traces, problems, strict=True)) >= 85
    assert sum(t.ledger.critical_path_tokens for t in traces) / len(traces) < 600


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"model": "/no/such/model"}, ModelError, "no model '/no/such/model'"),
        ({"model": "."}, ModelError, "no model in '.'"),
        ({"dialect": "morse"}, InputError, "unknown dialect 'morse'"),
        ({"engine": "sglang"}, InputError, "unknown engine 'sglang'"),
    ],
)
def test_what_cannot_be_loaded_is_named_before_anything_slow(options, error, says):
    with pytest.raises(error, match=says):
        ParallelLLM(**options)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Paralel'"):
        parallel_reason.Paralel  # noqa: B018


def test_importing_the_package_imports_no_engine():
    code = "import sys; from parallel_reason import Trace, Limits; print({'torch', 'vllm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_dead_engine_fails_its_traces_by_name_and_spares_the_others(soup_model, countdown):
    import psutil

    with ParallelLLM(soup_model) as doomed:
        mine = [p for p in psutil.Process().children(recursive=True) if "EngineCore" in p.name()]
        newest = max(mine, key=lambda process: process.create_time())
        killed = []

        def kill(trace):
            if not killed:
                killed.append(trace)
                newest.kill()

        sampling = SamplingParams(temperature=1.5, n=300, seed=1)
        traces = doomed.generate("abc", sampling, Limits(depth=2), on_trace=kill)
        failed = [trace for trace in traces if trace.status == "failed"]
        assert failed
        assert all("engine 'vllm'" in trace.stop_reason for trace in failed)
        assert traces.count(killed[0]) >= 1
        assert countdown.generate(str(PROBLEMS[0]))[0].status == "finished"


@pytest.mark.parametrize("engine", ["torch", "vllm"])
def test_a_model_without_the_control_tokens_is_refused_before_its_weights_are_loaded(engine, soup_model, tmp_path):
    import shutil

    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "plain"
    shutil.copytree(soup_model, folder)
    core = Tokenizer(models.WordLevel({"<eos>": 0} | {f"w{n}": n for n in range(1, 30)}, unk_token="<eos>"))
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>").save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no token for <spawn>, <sep>.* can write none"):
        ParallelLLM(folder, engine=engine)


def test_vllm_that_cannot_start_says_why_in_one_line(soup_model):
    with pytest.raises(EngineError, match=r"could not start .*max_model_len") as caught:
        ParallelLLM(soup_model, context=100_000)
    assert "\n" not in str(caught.value)


def test_an_output_layer_that_is_tied_to_the_embedding_takes_new_weights(countdown, tmp_path):
    embedded = load_reference(str(EMBEDDED))
    assert embedded.config.tie_word_embeddings
    other = other_weights(EMBEDDED, embedded, tmp_path)
    try:
        countdown.update_weights(str(tmp_path))
        [trace] = countdown.generate(str(PROBLEMS[0]), SamplingParams(temperature=1.0, seed=0), Limits(tokens=60))
    finally:
        countdown.update_weights(str(EMBEDDED))
    assert compare(other, trace).largest < BOUND
