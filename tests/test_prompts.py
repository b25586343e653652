"""The prompts that are shipped, and the files that anyone may write: strict, sandboxed, named in one line."""

import asyncio
import re
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_reason import InputError, Session
from parallel_reason.dialects import BUILT_IN, bind, find, known
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.prompts import PromptTemplate, load, names
from parallel_reason.runtime.replay import parse, problems
from tests.commands import call
from tests.letters import byte_tokenizer

FEW_SHOT = [name for name in names() if name.endswith("_few_shot")]
FORKS_AT_START = ("parathinker", "ssft")
SEEN_BY_ONE = ("apr", "async_think", "ssft")  # whose examples are what one thread sees, not a text of all threads
UNRELEASED = ("async_think",)  # no checkpoint and no code was published


def bytes_of(dialect):
    """Bytes, in which every tag is split over tokens; ``spawn_join`` needs its tags as tokens."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<eos>"})
    if dialect == "spawn_join":
        tokenizer.add_tokens(list(find(dialect).tags.values()))
    return tokenizer


def bound(dialect, tokenizer):
    return bind(dialect, tokenizer, **({"paths": 2} if dialect in FORKS_AT_START else {}))


def replies(name):
    """The worked examples of a prompt: its replies, or the ones that its user message quotes."""
    messages = load(name).render("?")
    said = [message["content"] for message in messages if message["role"] == "assistant"]
    return said or re.findall(r"Reply:\n(.*?)(?=\n\nProblem:)", messages[0]["content"], re.S)


def run(name, texts):
    """A trace of an engine that writes these texts after the prompt."""
    dialect = load(name).dialect
    tokenizer = bytes_of(dialect)
    prompt = "\n".join(message["content"] for message in load(name).render("1 + 1?"))
    engine = ScriptedEngine.from_texts(tokenizer, texts, context=20_000)
    return asyncio.run(Session(engine, bound(dialect, tokenizer)).run(prompt))[0]


def prompt_file(tmp_path, **fields):
    text = {"version": 1, "description": "d", "source": "s", "example": "e", **fields}
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(f"{key} = {value!r}" for key, value in text.items()))
    return file


# What is shipped.


@pytest.mark.parametrize("name", names())
def test_a_prompt_renders_with_its_problem_and_names_a_dialect(name):
    template = load(name)
    assert template.name == name
    assert template.dialect in {None, *known()}  # what strategies say suits all
    said = template.render("What is 6 * 7?")
    text = said if isinstance(said, str) else "".join(message["content"] for message in said)
    assert text.count("What is 6 * 7?") == 1
    assert not {"{{", "{%", "\r"} & {text[place : place + 2] for place in range(len(text))}
    assert max(map(len, (template.description, template.example))) < 120


@pytest.mark.parametrize("dialect", [dialect.name for dialect in BUILT_IN if dialect.name != "none"])
def test_every_dialect_has_a_published_prompt_and_worked_examples(dialect):
    of_it = [template for template in map(load, names()) if template.dialect == dialect]
    assert f"{dialect}_few_shot" in [template.name for template in of_it]
    published = [template for template in of_it if template.source != "written here"]
    assert bool(published) == (dialect not in UNRELEASED)


@pytest.mark.parametrize("name", [name for name in FEW_SHOT if name.removesuffix("_few_shot") not in SEEN_BY_ONE])
def test_worked_examples_are_texts_of_the_dialect_in_which_threads_fork_and_end(name):
    dialect = load(name).dialect
    tokenizer = bytes_of(dialect)
    grammar = bound(dialect, tokenizer)
    assert len(replies(name)) == 2
    for text in replies(name):
        ids = tokenizer.encode(text + "<eos>" * (dialect not in FORKS_AT_START), add_special_tokens=False)
        assert problems(grammar, tokenizer, [], ids) == []
        trace = parse(grammar, tokenizer, [], ids)
        assert len(trace.threads) >= 3
        assert {thread.status for thread in trace.threads} == {"finished"}


def seen(thread, tokenizer):
    """The text of a thread after its prompt, without what was taken back."""
    ids = []
    for span in thread.spans:
        ids = ids[: len(ids) - span.taken_back] + (span.ids if span.origin != "prompt" else [])
    return tokenizer.decode(ids)


def test_aprs_worked_examples_are_a_call_that_forks_and_what_a_run_makes_of_one():
    joined, call_text = replies("apr_few_shot")
    before, _, after = joined.partition("<Sub Searches>\n")
    solution = after.partition("#0,0>\n")[2].partition("\n<No Solution")[0]
    texts = {
        "0": [before + call_text[call_text.index("<Calling") :] + "<eos>", after.partition("<End Sub Searches>\n")[2]],
        "0.0": ["\n9,9 equal: Goal Reached\n" + solution],
        "0.1": ["\n10,9 unequal: No Solution"],
    }
    trace = run("apr_few_shot", texts)
    kept = seen(trace.root, bytes_of("apr")).removesuffix("<eos>")
    assert "".join(kept.split()) == "".join(joined.split())


def test_async_thinks_worked_examples_are_what_an_organizer_sees():
    for text in replies("async_think_few_shot"):
        results = re.findall(r"<JOIN-.>(.*?)</JOIN-.>", text)
        workers = {f"0.{number}": [f"It is <RETURN>{result}</RETURN>"] for number, result in enumerate(results)}
        trace = run("async_think_few_shot", {"0": [re.sub(r"(<JOIN-.>).*?</JOIN-.>", r"\1", text)], **workers})
        assert (seen(trace.root, bytes_of("async_think")), len(trace.threads)) == (text, 3)


def test_ssfts_worked_examples_are_what_a_thread_writes():
    for number, text in enumerate(replies("ssft_few_shot")):
        header, _, said = text.partition("\n")
        trace = run("ssft_few_shot", {"0.0": [said], "0.1": [said]})
        assert seen(trace.threads[number + 1], bytes_of("ssft")) == f"{header}\n{said}<eos>"
        assert seen(trace.root, bytes_of("ssft")) in text


@pytest.mark.parametrize("name", FEW_SHOT)
def test_tags_in_the_prompt_do_not_fork_and_the_same_tags_written_do(name):
    quiet = run(name, {"0": ["The answer is 2."]})
    assert len(quiet.root.forks) == (load(name).dialect in FORKS_AT_START)
    assert quiet.ledger.malformed_forks == 0
    assert len(run(name, {"0": [replies(name)[-1] + "<eos>"]}).root.forks) >= 1


@pytest.mark.parametrize("name", FEW_SHOT)
def test_no_reply_holds_what_chat_templates_of_thinking_models_drop(name):
    """Those of Qwen3 and DeepSeek-R1 drop all up to ``</think>`` from earlier replies; Gemma's has no system prompt."""
    template = load(name)
    assert not any("</think>" in turn.content for turn in template.messages if turn.role == "assistant")
    assert template.system is None
    assert template.chat_template_kwargs == {"enable_thinking": False}


BAR = "\uff5c"  # in DeepSeek's special tokens
GOLDEN = {
    "multiverse": "P Think step by step and in parallel before answering.",
    "threadweaver": "P Let's think step by step and output the final answer within \\boxed{}.",
    "apr": "Moving to Node #0\nCurrent State: P, Operations: []",
    "spawn_join": "P",
    "parathinker": "<|User|>P You FIRST think about the reasoning process as an internal monologue     and then "
    "summarize the reasoning process to get the final answer. The summary process MUST BE enclosed     within "
    "<summary> </summary> tags. The final answer MUST BE put in \\boxed{}.<|Assistant|><think>".replace("|", BAR),
    "dc_cot": "<|begin▁of▁sentence|><|User|>P You can spawn multiple workers to solve this problem in parallel. "
    "The workers' thoughts are enclosed within <spawn_workers></spawn_workers> tags, and each worker's thought is "
    "enclosed within <worker_i></worker_i> tags, where i is the worker number, i.e. <spawn_workers><worker_1>worker "
    "1's thought</worker_1><worker_2>worker 2's thought</worker_2>...</spawn_workers>. Let's think step by step and "
    "output the final answer within \\boxed{}.<|Assistant|><think>\n".replace("|", BAR),
    "ssft": "Solve the following math problem efficiently and clearly.  The last line of your response should be of "
    "the following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) "
    "where ANSWER is just the final number or expression that solves the problem. Think step by step before "
    "answering.\n\nP",
}
DIGESTS = {  # SHA-256 of the published texts, with the problem P
    "npr": "3dee4948fec772a0ec3bc65d01d7c324a332c67ca0545e891aa7b7a0ba916ac4",
    "parallel_r1": "9c3b4d3bf66380ee20fe8ce12b3f8ad3201d5944e83caf61abe0124a4c111909",
}


def content(name):
    """A prompt of one message or raw text, with the problem P."""
    said = load(name).render("P")
    if not isinstance(said, str):
        [message] = said
        said = message["content"]
    return said


@pytest.mark.parametrize("name", GOLDEN)
def test_published_prompts_are_literal(name):
    assert content(name) == GOLDEN[name]


def test_multiverse_as_nprs_evaluation_asks_it_is_literal():
    assert [(message["role"], message["content"]) for message in load("multiverse_boxed").render("P")] == [
        ("system", "Please think step by step and in parallel. Put your final answer within \\boxed{}."),
        (
            "user",
            "P\n\nThink step by step and in parallel before answering, and put your final answer within \\\\boxed{}.",
        ),
    ]


@pytest.mark.parametrize("name", DIGESTS)
def test_long_published_prompts_are_the_published_bytes(name):
    assert sha256(content(name).encode()).hexdigest() == DIGESTS[name]


def test_the_page_names_every_prompt_and_its_example_is_one(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "prompts.md").read_text()
    assert set(names()) <= set(re.findall(r"`(\w+)`", page))
    (tmp_path / "mine.toml").write_text(*re.findall(r"^```toml\n(.*?)^```", page, re.S | re.M))
    assert load(tmp_path / "mine.toml", dialect="npr").render("Q?")[0] == {
        "role": "system",
        "content": "You are brief.",
    }


# Choosing one.


def test_a_prompt_is_found_by_name_or_path_and_refused_for_another_dialect(tmp_path):
    with pytest.raises(InputError, match="unknown prompt 'multiverse_few'; there is apr, "):
        load("multiverse_few")
    with pytest.raises(InputError, match="'npr' is for dialect 'npr', not 'multiverse': use multiverse, multiverse_"):
        load("npr", dialect="multiverse")
    assert load("npr", dialect="npr") == load("npr", dialect="none") == load("npr")
    file = prompt_file(tmp_path, text="Q: {{ problem }}")
    assert load(str(file), dialect="npr").render("x") == load(file).render("x") == "Q: x"
    assert load(file).name == "mine"


@pytest.mark.parametrize("given", ["no/such", "no.toml", "\0.toml", "/", "~nobody/x.toml"])
def test_a_file_that_cannot_be_read_is_named_in_one_line(given):
    with pytest.raises(InputError, match="cannot read prompt") as caught:
        load(given)
    assert "\n" not in str(caught.value)


# Files of others.


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}", "{{ problem.__class__.__mro__ }}", "{{ problem['__class__'] }}", "{{ problem.format }}",
        "{% include '/etc/passwd' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% macro m() %}{% endmacro %}",
        "{% for i in range(100000000) %}{% endfor %}", "{% for a in problem %}{% for b in a %}{% endfor %}{% endfor %}",
        "{% for a in problem recursive %}{{ loop(problem) }}{% endfor %}", "{% for a in [1, 2] %}{% endfor %}",
        "{{ 'a' * 10000000000 }}", "{{ 9 ** 9 ** 9 }}", "{{ problem|center(1000000000) }}", "{% set x = 1 %}",
        "{{ lipsum() }}", "{{ self }}{{ cycler() }}", "{{ problem", "{% if problem %}", "{% for a in problem %}"
        "{{ loop.cycle }}{% endfor %}", "{{ " + "(" * 5000 + "problem" + ")" * 5000 + " }}",
        "{% if problem %}" * 150 + "{% endif %}" * 150, "{{ _x__.a }}",
        "{{ " + "9" * 5000 + " }}",
    ],
)  # fmt: skip
def test_what_a_hostile_file_asks_for_is_refused_when_it_is_read(tmp_path, text):
    with pytest.raises(InputError, match=r"prompt 'mine': (line 1: a prompt may not use|not a template)") as caught:
        load(prompt_file(tmp_path, text="{{ problem }}" + text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("version = ", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("\xff", "is not TOML in UTF-8"),
        ("version = 1", "field 'description': Field required"),
        ("version = 0", "field 'version': Input should be greater than or equal to 1"),
        ("#" * 300_000, "more than 262144 bytes"),
    ],
)
def test_a_file_that_is_no_prompt_is_named_in_one_line(tmp_path, content, says):
    file = tmp_path / "mine.toml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "needs either a text or messages"),
        ({"text": "x"}, "does not use its variable 'problem'"),
        ({"text": "{{ problem }}", "suffix": "x"}, "go with messages, not a text"),
        ({"text": "{{ problem }}", "variables": {"a": 1}}, "does not use its variable 'a'"),
        ({"text": "{{ problem }}", "variables": {"problem": "x"}}, "always given"),
        ({"messages": [{"role": "assistant", "content": "{{ problem }}"}]}, "the last message must be the user's"),
    ],
)
def test_a_prompt_that_could_not_be_used_is_refused(fields, says):
    with pytest.raises(InputError, match=says):
        PromptTemplate(name="mine", version=1, description="d", source="s", example="e", **fields)


# Variables.

JUDGE = PromptTemplate(
    name="judge", version=1, description="d", source="s", example="e", variables={"tone": "kind"},
    text="{{ problem }} {% for a in answers %}{{ loop.index }}: {{ a }};{% endfor %} {{ tone }}",
)  # fmt: skip


def test_variables_are_filled_in_and_named_when_they_are_missing_unknown_or_wrong():
    assert JUDGE.required == ["answers"]
    assert JUDGE.render("Q?", answers=["x", "y"]) == "Q? 1: x;2: y; kind"
    assert JUDGE.render("Q?", answers=[], tone="stern") == "Q?  stern"
    assert load("apr").render("7:[1, 2]", budget=10).startswith("Sub Call Budget: 10 Moving to Node #0\n")
    for values, says in [
        ({}, "prompt 'judge' needs answers"),
        ({"answers": [], "answer": 1}, "has no variable 'answer'; it has tone, answers"),
        ({"answers": None}, "answers is None; give a text, a number or a list"),
        ({"answers": 5}, "'int' object is not iterable"),
    ]:
        with pytest.raises(InputError, match=says):
            JUDGE.render("Q?", **values)
    with pytest.raises(InputError, match="takes a problem as a text, not \\['Q'\\]"):
        JUDGE.render(["Q"], answers=[])
    with pytest.raises(InputError, match="has no variable 'x'; it has none beside the problem"):
        load("npr").render("Q?", x=1)


@given(
    problem=st.lists(
        st.sampled_from(["{{ tone }}", "{%", "%}", "{{", "}}", "{#", "{{ ''.__class__ }}", "\\", "a"])
    ).map("".join),
    answers=st.lists(st.sampled_from(["{% for", "{{ problem }}", "'", "\n"]), max_size=3),
)
def test_what_a_variable_holds_is_never_rendered_again(problem, answers):
    listed = "".join(f"{number}: {answer};" for number, answer in enumerate(answers, 1))
    assert JUDGE.render(problem, answers=answers) == f"{problem} {listed} kind"


def test_a_rendered_text_is_bounded():
    with pytest.raises(InputError, match="more than 16777216 characters"):
        JUDGE.render("Q?", answers=["x" * 100_000] * 200)


# The command.


def test_the_command_lists_prompts_and_shows_one(tmp_path):
    listed = call("prompts").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(names())
    assert "npr: The user message with which NPR is sampled" in next(line for line in listed if line.startswith("npr "))
    shown = call("prompts", "multiverse_boxed").stdout
    assert "--- system\nPlease think step by step" in shown
    assert "--- user\nWhat is 12 * 13?\n\nThink step by step" in shown
    file = prompt_file(tmp_path, text="{{ problem }} {{ more }} \x1b[31m")
    file.write_text(file.read_text().replace("\\x1b", "\\u001b").replace("'{{", '"{{').replace("31m'", '31m"'))
    assert "variable more, which must be given\n--- raw text\ne ... \\x1b[31m\n" in call("prompts", file).stdout
    assert call("prompts", "nope").stderr.startswith("error: unknown prompt 'nope'; there is apr,")
