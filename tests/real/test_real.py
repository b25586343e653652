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
def torch_engines(request):
    """``torch_engines("text_model" or "token_model")``: a torch engine on that folder; it keeps one."""
    held = {}
    with contextlib.ExitStack() as stack:

        def engine(model):
            if model not in held:
                held.clear()
                stack.close()
                folder = request.getfixturevalue(model)
                held[model] = stack.enter_context(ParallelLLM(folder, dialect="npr", engine="torch")), folder
            return held[model]

        yield engine


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("text_model", "multiverse"),
        *(pytest.param("text_model", name, marks=pytest.mark.real) for name in AS_TEXT if name != "multiverse"),
        ("token_model", "spawn_join"),
        *(pytest.param("token_model", name, marks=pytest.mark.real) for name in AS_TOKENS if name != "spawn_join"),
    ],
)
def test_the_torch_engine_is_exact(torch_engines, reference, model, name):
    llm, folder = torch_engines(model)
    check(llm, name, run(llm, name), folder, reference)
    assert llm.kv_is_free()


@pytest.mark.real
@pytest.mark.parametrize(("model", "names"), [("text_model", AS_TEXT), ("token_model", AS_TOKENS)])
def test_vllm_is_exact(request, reference, model, names):
    folder = request.getfixturevalue(model)
    with ParallelLLM(folder, dialect="npr", engine="vllm", context=2048) as llm:
        for name in names:
            check(llm, name, run(llm, name), folder, reference)
        assert llm.kv_is_free()


@pytest.mark.real
@pytest.mark.parametrize(("model", "names"), [("text_model", AS_TEXT), ("token_model", AS_TOKENS)])
def test_a_real_server_is_exact(request, reference, tmp_path, model, names):
    folder = request.getfixturevalue(model)
    server = Serve(folder, tmp_path / "log", *SERVED)
    request.addfinalizer(server.kill)
    options = {"engine": "openai", "dialect": "threadweaver", "seeded_sampler": True}
    with ParallelLLM(base_url=server.ready().url, **options) as llm:
        for name in (name for name in names if name in NO_GRAFT):
            check(llm, name, run(llm, name), folder, reference)


@pytest.mark.real
def test_a_stream_gives_characters_of_several_tokens_whole(torch_engines):
    llm, _ = torch_engines("text_model")
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
def test_tags_are_cut_across_tokens_and_across_budgets(torch_engines, reference):
    llm, folder = torch_engines("text_model")
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
@pytest.mark.parametrize("engine", ["torch", "vllm"])
def test_a_long_prompt_is_exact(request, torch_engines, reference, engine):
    folder = request.getfixturevalue("text_model")
    prompt = "The parrot 🦜 said: 漢字 are hard to write. " * 130
    with contextlib.ExitStack() as stack:
        llm = torch_engines("text_model")[0] if engine == "torch" else None
        llm = llm or stack.enter_context(ParallelLLM(folder, dialect="npr", engine="vllm", context=4096))
        sampling = sampling_of(llm.engine, "npr")
        (trace,) = llm.run_coroutine(session_of(llm.engine, "npr").run(prompt, sampling, limits_of("npr")))
    assert len(trace.prompt_ids) > 1800
    assert trace.root.forks
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
