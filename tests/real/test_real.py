"""Every dialect on a real pretrained model, its tags as text and as tokens, on every engine that can join as it does.

A grammar makes the model write the tags; the text between them is its own. What is checked: it forks and joins, the
log-probs are those of plain transformers, and characters of several tokens come out whole. Two dialects on the torch
engine are part of ``make test``, all else of ``make check-real``.
"""

import contextlib

import pytest

from parallel_reason import ParallelLLM
from parallel_reason.exactness import BOUND, compare, load_reference
from parallel_reason.runtime.events import ThreadEnded, TokensSampled, TraceFinished
from parallel_reason.trace import Trace
from tests.commands import call
from tests.real.scripts import (
    AS_TEXT,
    AS_TOKENS,
    MESSAGES,
    NO_GRAFT,
    SCRIPTS,
    SIGNS,
    limits_of,
    sampling_of,
    session_of,
)
from tests.servers import Serve

SERVED = ["--logits-processors", "parallel_reason.engines.vllm.seeded:SeededSampler", "--max-model-len", "2048"]


@pytest.fixture(scope="session")
def reference():
    """``reference(folder, trace)``: the comparison with plain transformers; it keeps one model."""
    held = {}

    def scores(folder, trace):
        if folder not in held:
            held.clear()
            held[folder] = load_reference(folder)
        return compare(held[folder], trace)

    return scores


def run(llm, name, n=2, **bounds):
    """Traces of the script of a dialect."""
    session = session_of(llm.engine, name)
    prompt = SCRIPTS[name].prompt or MESSAGES
    return llm.run_coroutine(session.run(prompt, sampling_of(llm.engine, name, n=n), limits_of(name, **bounds)))


def sampled(thread):
    """The ids that a thread sampled."""
    return [token for span in thread.spans if span.origin == "sampled" for token in span.ids]


def check(llm, name, traces, folder, reference):
    """They fork and join for real, are exact, and hold the signs; a child ends where its tag does."""
    script = SCRIPTS[name]
    for trace in traces:
        assert not trace.errors
        assert len(trace.threads) == 1 + script.children
        last = max(fork.at for fork in trace.root.forks)
        assert name == "ssft" or any(span.origin == "sampled" for span in trace.root.spans[last:])
        for number, child in enumerate(trace.threads[1:]):
            text = llm.tokenizer.decode(sampled(child))
            assert SIGNS in text
            assert child.status == "finished"
            if end := script.end.replace("#", str(number + 1)):
                assert text.count(end) == 1
                assert len(text.partition(end)[2]) < 3  # of the token that ends the tag
        assert Trace.model_validate_json(trace.model_dump_json()) == trace
        compared = reference(folder, trace)
        assert len(compared.ids) > 40
        assert compared.largest < BOUND, name


@pytest.fixture(scope="session")
def llms(request, tmp_path_factory):
    """``llms(engine, model)``: an engine, or a client of a ``server``, on a model of these fixtures, and its folder.

    It keeps one that is torch, which loads in seconds, and one that is not.
    """
    held = {}
    with contextlib.ExitStack() as torch, contextlib.ExitStack() as slow:

        def llm(engine, model):
            stack = torch if engine == "torch" else slow
            if held.get(stack, [None])[0] != (engine, model):
                stack.close()
                folder = request.getfixturevalue(model)
                held[stack] = (engine, model), stack.enter_context(started(engine, folder, tmp_path_factory)), folder
            return held[stack][1:]

        yield llm


@contextlib.contextmanager
def started(engine, folder, tmp_path_factory):
    """A `ParallelLLM` on an engine, or on a server of its own."""
    if engine != "server":
        options = {"context": 4096} if engine == "vllm" else {}
        with ParallelLLM(folder, dialect="npr", engine=engine, **options) as llm:
            yield llm
        return
    server = Serve(folder, tmp_path_factory.mktemp("server") / "log", *SERVED)
    try:
        options = {"engine": "openai", "dialect": "threadweaver", "seeded_sampler": True}
        with ParallelLLM(base_url=server.ready().url, **options) as llm:
            yield llm
    finally:
        server.kill()


def cases(engine, quick=()):
    """Models and dialects for an engine; all but the ``quick`` ones are left to ``make check-real``."""
    every = [("token_model", name) for name in AS_TOKENS] + [("text_model", name) for name in AS_TEXT]
    able = [case for case in every if engine != "server" or case[1] in NO_GRAFT]
    return [pytest.param(*case, marks=[] if case in quick else pytest.mark.real) for case in able]


@pytest.mark.parametrize(
    ("model", "name"), cases("torch", quick=[("text_model", "multiverse"), ("token_model", "spawn_join")])
)
def test_the_torch_engine_is_exact(llms, reference, model, name):
    llm, folder = llms("torch", model)
    check(llm, name, run(llm, name), folder, reference)
    assert llm.kv_is_free()


@pytest.mark.parametrize(("model", "name"), cases("vllm"))
def test_vllm_is_exact(llms, reference, model, name):
    llm, folder = llms("vllm", model)
    check(llm, name, run(llm, name), folder, reference)
    assert llm.kv_is_free()


@pytest.mark.real
@pytest.mark.parametrize("engine", ["vllm", "torch"])
def test_a_long_prompt_is_exact(llms, reference, engine):
    prompt = "The parrot 🦜 said: 漢字 are hard to write. " * 130
    llm, folder = llms(engine, "text_model")
    sampling = sampling_of(llm.engine, "npr")
    (trace,) = llm.run_coroutine(session_of(llm.engine, "npr").run(prompt, sampling, limits_of("npr")))
    assert len(trace.prompt_ids) > 1800
    assert trace.root.forks
    assert reference(folder, trace).largest < BOUND


@pytest.mark.parametrize(("model", "name"), cases("server"))
def test_a_real_server_is_exact(llms, reference, model, name):
    llm, folder = llms("server", model)
    check(llm, name, run(llm, name), folder, reference)


@pytest.mark.real
def test_a_stream_gives_characters_of_several_tokens_whole(llms):
    llm, _ = llms("torch", "text_model")
    session = session_of(llm.engine, "multiverse")

    async def events():
        return [
            event
            async for event in session.stream(MESSAGES, sampling_of(llm.engine, "multiverse"), limits_of("multiverse"))
        ]

    texts, ended, trace = {}, set(), None
    for event in llm.run_coroutine(events()):
        if isinstance(event, TokensSampled):
            texts[event.label] = texts.get(event.label, "") + event.text
        elif isinstance(event, ThreadEnded):
            ended.add(event.label)
        elif isinstance(event, TraceFinished):
            trace = event.trace
    assert ended == {"0", "0.0", "0.1"}
    for thread in trace.threads:
        assert texts[thread.label] == llm.tokenizer.decode(sampled(thread))
        assert thread.depth == 0 or SIGNS in texts[thread.label]


@pytest.mark.real
def test_tags_are_cut_across_tokens_and_across_budgets(llms, reference):
    llm, folder = llms("torch", "text_model")
    (whole,) = run(llm, "multiverse", n=1)
    children = whole.threads[1:]
    assert not any("</Path>" in llm.tokenizer.decode(token) for child in children for token in sampled(child))
    before_join = len(whole.root.spans[1].ids) + sum(len(sampled(child)) for child in children)
    for tokens in range(before_join - 6, before_join + 2):
        (trace,) = run(llm, "multiverse", n=1, tokens=tokens)
        for child in trace.threads[1:]:
            text = llm.tokenizer.decode(sampled(child))
            assert text.count("</Path>") <= 1
            assert len(text.partition("</Path>")[2]) < 3
        assert reference(folder, trace).largest < BOUND


@pytest.mark.real
def test_the_prepared_folder_is_checked_and_known_by_every_command(gguf, tmp_path):
    done = call("prepare", "--model", gguf, "--dialect", "npr", "--out", tmp_path / "model", timeout=600)
    assert done.returncode == 0, done.stderr
    assert "embeddings: 49152 rows before, 49160 now" in done.stdout
    assert "checked: " in done.stdout
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(tmp_path / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert "Paris" in tokenizer.decode(model.generate(ids, max_new_tokens=3, do_sample=False)[0])
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False).startswith("<|im_start|>system")
