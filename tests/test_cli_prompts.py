"""What the command line makes of prompts: from arguments, files and pipes; as raw texts and as chats."""

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_reason import Limits
from parallel_reason.cli.chat import check_prompts, make_call, sent_raw
from parallel_reason.cli.prompts import read_prompts
from parallel_reason.errors import InputError
from tests.letters import byte_tokenizer

NOTHING = dict.fromkeys(("template", "chat", "system", "reply", "chat_option", "dialect", "engine")) | {"model": "m"}
ASK = [{"role": "user", "content": "Hi"}]


def piped(monkeypatch, data, **options):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return [one.prompt for one in read_prompts([], None, **options)]


def call(prompts, **params):
    return make_call(prompts, NOTHING | params)


def test_a_file_or_a_pipe_is_one_prompt(tmp_path, monkeypatch):
    text = "First line.\n\n  Second, with \u2028 and \x0c.\r\n"
    (tmp_path / "prompt.txt").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n")
    assert [one.prompt for one in read_prompts([], tmp_path / "prompt.txt")] == [text]
    assert piped(monkeypatch, text.encode()) == [text[:-2]]


def test_with_lines_every_line_is_one_and_no_other_character_ends_it(tmp_path, monkeypatch):
    prompts = ["1,2=3\u2028", "1,3=4\x0c", "1,4=5\x0b\u2029", "\x851,5=6"]
    data = ("\ufeff" + "\r\n".join(prompts[:2]) + "\r" + "\n\n".join(prompts[2:])).encode()
    (tmp_path / "prompts.txt").write_bytes(data)
    assert [one.prompt for one in read_prompts([], tmp_path / "prompts.txt", lines=True)] == prompts
    assert piped(monkeypatch, data, lines=True) == prompts


def test_json_lines_have_texts_or_chats_and_ids(tmp_path, monkeypatch):
    rows = [{"id": 7, "prompt": "one\ntwo", "answer": 3}, {"id": "b", "messages": ASK}, {"id": "c", "prompt": ASK}]
    data = "\n".join(map(json.dumps, rows)) + "\n\n"
    (tmp_path / "prompts.jsonl").write_text(data)
    found = read_prompts([], tmp_path / "prompts.jsonl")
    assert [(one.id, one.prompt, one.title) for one in found] == [
        ("7", "one\ntwo", "one\ntwo"), ("b", ASK, "Hi"), ("c", ASK, "Hi"),
    ]  # fmt: skip
    assert piped(monkeypatch, data.encode(), jsonl=True) == [one.prompt for one in found]
    assert call(found).options == {"tasks": ["7", "b", "c"]}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "JSON"), ("[1]", "an object"), ('{"prompt": 5}', "'prompt'"), ('{"prompt": ""}', "has no text under"),
        ('{"messages": []}', "has no text under"), ('{"text": "x"}', "has no text under"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_prompt_is_named(tmp_path, line, says):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "fine"}}\n{line}\n')
    with pytest.raises(InputError, match=f"line 2 of {file}") as caught:
        read_prompts([], file)
    assert says in str(caught.value)


@given(st.lists(st.text(), min_size=1))
def test_arguments_are_prompts_as_they_are(texts):
    assert call(read_prompts(texts, None)).prompts == texts


def test_flags_of_chats_make_prompts_messages():
    (chat,) = call(read_prompts(["Why?"], None), system="Be brief.", reply="Because").prompts
    assert chat == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because"},
    ]
    assert call(read_prompts(["Why?"], None), chat=True).prompts == [[{"role": "user", "content": "Why?"}]]


def test_a_reply_that_was_started_is_continued_and_variables_reach_the_template():
    options = call(read_prompts(["Why?"], None), reply="Because", chat_option=["enable_thinking=false"]).options["chat"]
    assert (options.add_generation_prompt, options.continue_final_message) == (False, True)
    assert options.chat_template_kwargs == {"enable_thinking": False}


def rows(tmp_path, *lines):
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return read_prompts([], tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("lines", "params", "says"),
    [
        ([{"messages": ASK}], {"template": "multiverse"}, "line 1 of .* is a chat already"),
        ([{"prompt": "x"}], {"template": "multiverse", "system": "y"}, "--system cannot be given with it"),
        ([{"prompt": "x"}], {"template": "multiverse", "chat": True}, "--chat cannot be given with it"),
        ([{"prompt": "x"}], {"template": "multiverse", "dialect": "npr"}, "is for dialect 'multiverse'"),
        ([{"messages": [{"role": "system", "content": "a"}, *ASK]}], {"system": "b"}, "line 1 of .* of its own"),
        ([{"messages": ASK}, {"messages": [*ASK, {"role": "assistant", "content": "I"}]}], {}, "put them in two files"),
        ([{"prompt": "x", "id": 1}, {"prompt": "y"}], {}, "line 2 of .* has no 'id'"),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_line(tmp_path, lines, params, says):
    with pytest.raises(InputError, match=says):
        call(rows(tmp_path, *lines), **params)


@pytest.fixture
def chat_tokenizer():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|im_start|>{{ message.content }}{% endfor %}"
    )
    return tokenizer


def test_it_is_noted_when_a_chat_model_gets_a_text_without_its_template(chat_tokenizer):
    raw = call(read_prompts(["Why?"], None))
    assert sent_raw(raw, chat_tokenizer, None)
    assert not sent_raw(raw, chat_tokenizer, False)
    assert not sent_raw(call(read_prompts(["Why?"], None), chat=True), chat_tokenizer, None)
    assert not sent_raw(call(read_prompts(["<|im_start|>Why?"], None)), chat_tokenizer, None)
    assert not sent_raw(raw, byte_tokenizer(), None)
    assert not sent_raw(raw, None, None)


def test_what_the_tokenizer_can_refuse_needs_no_engine(chat_tokenizer):
    good = call(read_prompts(["Why?"], None), chat=True)
    check_prompts(good, chat_tokenizer, "m", Limits())
    with pytest.raises(InputError, match=r"^m has no chat template"):
        check_prompts(good, byte_tokenizer(), "m", Limits())
    with pytest.raises(InputError, match=r"^prompt 0: .* refuses the messages: no system"):
        check_prompts(call(read_prompts(["Why?", "How?"], None), system="Brief."), chat_tokenizer, "m", Limits())
    with pytest.raises(InputError, match=r"^prompt 1: the prompt is empty"):
        check_prompts(call(read_prompts(["Why?", " "], None)), chat_tokenizer, "m", Limits())
    with pytest.raises(InputError, match="4 tokens and the window 4"):
        check_prompts(call(read_prompts(["Why?"], None)), chat_tokenizer, "m", Limits(context=4))
