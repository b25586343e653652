"""`Session` and `ParallelLLM`: templates, chats, and the dialect that a folder was prepared for."""

import asyncio
import json
import shutil

import pytest

from benchmarks.grammars import tokenizer_of
from parallel_reason import ChatOptions, InputError, ParallelLLM, Session
from parallel_reason.dialects import bind
from parallel_reason.engines import EMBEDDED
from parallel_reason.engines.scripted import ScriptedEngine
from tests.scripted import run

CHAT = (
    "{% for message in messages %}{{ message.role }}:{{ message.content }}.{% endfor %}"
    "{% if add_generation_prompt %}{{ begin }}{% endif %}"
)
PROMPT = """
version = 1
description = "A question."
source = "written here"
example = "1+1"
[[messages]]
role = "user"
content = "Q {{ problem }}"
"""


def chatting(dialect="spawn_join"):
    words = tokenizer_of(["spawn_join"])
    words.chat_template = CHAT
    return Session(ScriptedEngine.from_texts(words, {"0": ["c<eos>"]}), bind(dialect, words))


@pytest.fixture
def question(tmp_path):
    file = tmp_path / "question.toml"
    file.write_text(PROMPT)
    return file


def test_every_prompt_is_put_into_a_template_as_its_problem(question):
    traces = run(chatting(), ["1", "2"], prompt=question, chat={"chat_template_kwargs": {"begin": "A"}})
    assert [trace.prompt for trace in traces] == ["user:Q 1.A", "user:Q 2.A"]
    assert traces[0].messages == [{"role": "user", "content": "Q 1"}]
    assert [trace.prompt for trace in run(chatting("none"), "1", prompt=str(question))] == ["user:Q 1."]


def test_with_chat_options_a_text_is_a_message_of_the_user():
    over = chatting()
    started = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert run(over, "1+1", chat=ChatOptions())[0].prompt == "user:1+1."
    assert run(over, "1+1")[0].prompt == "1+1"
    [trace] = run(over, [started], chat=ChatOptions(add_generation_prompt=False, continue_final_message=True))
    assert trace.prompt == "user:a.assistant:b"


def test_a_stream_takes_them_too(question):
    async def last():
        stream = chatting().stream("1", prompt=question, chat={"chat_template_kwargs": {"begin": "A"}})
        return [event async for event in stream][-1].trace.prompt

    assert asyncio.run(last()) == "user:Q 1.A"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompt": "no_such_prompt"}, "unknown prompt 'no_such_prompt'"),
        ({"prompt": "multiverse"}, "prompt 'multiverse' is for dialect 'multiverse', not 'spawn_join'"),
        ({"chat": True}, "chat must be a ChatOptions of parallel_reason or a dict of its fields, not True"),
        ({"chat": {"template": "x"}}, "chat has no field 'template'; it has chat_template, "),
    ],
)
def test_what_is_no_template_or_no_options_is_refused_in_one_line(options, says):
    with pytest.raises(InputError, match=says) as caught:
        run(chatting(), "1", **options)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The embedded model, as if it had been prepared for a dialect of its own."""
    folder = tmp_path_factory.mktemp("prepared") / "model"
    shutil.copytree(EMBEDDED, folder)
    config = json.loads((folder / "config.json").read_text())
    said = {"dialect": "spawn_join", "dialect_options": {"join_on": "first"}, "rows": config["vocab_size"]}
    (folder / "config.json").write_text(json.dumps(config | {"parallel_reason": said}))
    return folder


@pytest.mark.parametrize(
    ("asked", "name", "options"),
    [
        ({}, "spawn_join", {"prefix": "shared", "join_on": "first"}),
        ({"dialect_options": {"prefix": "message"}}, "spawn_join", {"prefix": "message", "join_on": "first"}),
        ({"dialect": "spawn_join"}, "spawn_join", {"prefix": "shared", "join_on": "all"}),
        ({"dialect": "none"}, "none", {}),
    ],
)
def test_a_prepared_folder_chooses_its_dialect_unless_one_is_given(prepared, asked, name, options):
    with ParallelLLM(prepared, engine="torch", **asked) as llm:
        made = llm.circumstances()
    assert (made["dialect"], made["dialect_options"]) == (name, options)


def test_chat_answers_one_chat_or_several_with_the_options_of_vllm(soup):
    one, other = [{"role": "user", "content": "acd"}], [{"role": "user", "content": "ef"}]
    short = {"tokens": 3}
    assert [trace.prompt for trace in soup.chat(one, limits=short)] == ["acdb"]
    traces = soup.chat([one, other], {"n": 2}, short, tasks=["x", "y"])
    assert [(trace.prompt, trace.task) for trace in traces] == [("acdb", "x")] * 2 + [("efb", "y")] * 2
    template = "{{ messages[0].content }}{{ last }}"
    options = {"chat_template": template, "chat_template_kwargs": {"last": "t"}, "add_generation_prompt": False}
    assert soup.chat(one, limits=short, **options)[0].prompt == "acdt"
    for wrong in ("acd", [1, 2], ["acd"], [one, "acd"]):
        with pytest.raises(InputError, match="chat takes lists of messages, not "):
            soup.chat(wrong)
