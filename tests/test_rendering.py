"""How prompts become token ids: the chat template under vLLM's names, prompt files, and what is refused."""

import asyncio

import numpy as np
import pytest
import torch

from parallel_reason import InputError, Limits
from parallel_reason.engines.scripted import ScriptedEngine
from parallel_reason.prompts import PromptTemplate, load
from parallel_reason.runtime.prompts import ChatOptions, as_prompts, render
from tests.letters import byte_tokenizer

# ChatML with what the templates of thinking models do.
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}{% if add_generation_prompt %}"
    "[assistant]{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
HI = [{"role": "user", "content": "hi"}]
STARTED = [*HI, {"role": "assistant", "content": "Well,"}]
ASKS = {"name": "mine", "version": 1, "description": "d", "source": "s", "example": "e"}
MINE = PromptTemplate(**ASKS, messages=[{"role": "user", "content": "Q: {{ problem }}"}], suffix="<think>\n")


def engine(template=TEMPLATE, bos=True, adds=True):
    """An engine whose tokenizer is of bytes and, as Llama's, begins every text with ``<s>``."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<eos>", **({"bos_token": "<s>"} if bos else {})})
    if bos and adds:
        tokenizer._tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    tokenizer.chat_template = template
    return ScriptedEngine.from_texts(tokenizer, {})


def rendered(prompt, over=None, **options):
    over = over or engine()
    result = render(prompt, over, Limits(), **options)
    assert result.ids.count(over.tokenizer.bos_token_id) <= 1
    assert over.tokenizer.decode(result.ids, skip_special_tokens=False).removeprefix("<s>") == result.text.removeprefix(
        "<s>"
    )
    return result


# Chat.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "<s>[user]hi[end][assistant]"),
        ({"add_generation_prompt": False}, "<s>[user]hi[end]"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "<s>[user]hi[end][assistant]<think></think>"),
        ({"chat_template": "{{ messages[0].content }}!"}, "hi!"),
    ],
)
def test_chat_options_mean_what_they_mean_in_vllm(options, text):
    asked = rendered(HI, chat=ChatOptions(**options))
    assert (asked.text, asked.messages) == (text, HI)
    assert rendered("hi", chat=ChatOptions(**options)) == asked


def test_a_reply_that_is_begun_is_continued():
    continued = ChatOptions(continue_final_message=True, add_generation_prompt=False)
    assert rendered(STARTED, chat=continued).text == "<s>[user]hi[end][assistant]Well,"


@pytest.mark.parametrize(
    ("prompt", "options", "says"),
    [
        (STARTED, {"continue_final_message": True}, "continue_final_message=True needs add_generation_prompt=False"),
        (HI, {"continue_final_message": True, "add_generation_prompt": False}, "of the assistant, not of 'user'"),
        (HI, {"chat_template": "{{ messages"}, "the chat template of scripted refuses the messages: "),
        (HI, {"chat_template": "{{ 1 / 0 }}"}, "refuses the messages: division by zero"),
        (HI, {"chat_template": "{{ raise_exception('no\nway') }}"}, "refuses the messages: no$"),
        (HI, {"chat_template": "{{ ''.__class__.__mro__ }}"}, "refuses the messages: "),
        (HI, {"chat_template_kwargs": {"tokenize": True}}, "'tokenize', which is no variable of a chat template"),
        (HI, {"chat_template_kwargs": {"messages": []}}, "refuses the messages: "),
        ([5], {}, "not with token ids"),
        ([{"role": "user", "content": "\ud800"}], {}, "character 9 of the prompt is half of a character"),
        ([{"role": "user", "content": 5}], {}, "chat message 0 is"),
        ([{"role": 5, "content": "hi"}], {}, "chat message 0 is"),
        ([{"role": "user", "content": None}], {}, "chat message 0 is"),
    ],
)
def test_what_no_chat_template_could_take_is_refused_in_one_line(prompt, options, says):
    with pytest.raises(InputError, match=says) as caught:
        rendered(prompt, chat=ChatOptions(**options))
    assert "\n" not in str(caught.value)


def test_a_model_without_a_chat_template_takes_one_from_the_caller():
    with pytest.raises(InputError, match="scripted has no chat template"):
        rendered(HI, engine(template=None))
    assert rendered(HI, engine(template=None), chat=ChatOptions(chat_template=TEMPLATE)).text.startswith("<s>[user]hi")


# The begin of sentence.


@pytest.mark.parametrize(
    ("prompt", "begins"), [("hi", 1), ("<s>hi", 1), ("hi<s>", 2), ("<s>hi<s>", 2), ("<s><s>hi", 2)]
)
def test_a_begin_of_sentence_that_a_text_has_is_not_added_again(prompt, begins):
    over = engine()
    ids = render(prompt, over, Limits()).ids
    assert ids[0] == over.tokenizer.bos_token_id
    assert ids.count(over.tokenizer.bos_token_id) == begins
    assert over.tokenizer.decode(ids, skip_special_tokens=True) == "hi"


def test_a_tokenizer_that_adds_none_is_left_alone():
    for over, begins in ((engine(adds=False), 2), (engine(bos=False), 0)):
        ids = render("<s><s>hi", over, Limits()).ids
        assert ids.count(over.tokenizer.bos_token_id) == begins


def test_raw_prompts_of_deepseeks_checkpoints_begin_once():
    over = engine()
    over.tokenizer.add_special_tokens({"bos_token": "<\uff5cbegin▁of▁sentence\uff5c>"})
    ids = render("1 + 1?", over, Limits(), template=load("dc_cot")).ids
    assert ids.count(over.tokenizer.bos_token_id) == 1


# Prompt files.


def test_a_prompt_file_goes_through_the_chat_template_and_begins_the_reply():
    asked = rendered("1 + 1?", template=MINE)
    assert asked.text == "<s>[user]Q: 1 + 1?[end][assistant]<think>\n"
    assert asked.messages == [{"role": "user", "content": "Q: 1 + 1?"}]
    for own in ("<think>", "{{ '<think>\\n' }}"):
        thinking = rendered("1 + 1?", engine(template=TEMPLATE + own), template=MINE).text
        assert thinking.rstrip() == asked.text.rstrip()


def test_options_of_the_call_win_over_those_of_the_file():
    quiet = MINE.model_copy(update={"suffix": "", "chat_template_kwargs": {"enable_thinking": False}})
    assert rendered("Q", template=quiet).text.endswith("[assistant]<think></think>")
    loud = ChatOptions(chat_template_kwargs={"enable_thinking": True})
    assert rendered("Q", template=quiet, chat=loud).text.endswith("[assistant]")


@pytest.mark.parametrize(
    ("prompt", "template", "chat", "says"),
    [
        ([1, 2], MINE, None, "prompt 'mine' takes a problem as a text, not"),
        (HI, MINE, None, "prompt 'mine' takes a problem as a text, not"),
        (" ", MINE, None, "the prompt is empty"),
        ("Q", load("dc_cot"), ChatOptions(), "prompt 'dc_cot' is a raw text, which takes no chat options"),
        ("\ud800", MINE, None, "half of a character"),
        ("Q", MINE, ChatOptions(continue_final_message=True, add_generation_prompt=False), "not of 'user'"),
        ("Q" * 5000, MINE, None, "tokens and the window 4000"),
    ],
)
def test_a_problem_that_a_prompt_file_cannot_take_is_refused(prompt, template, chat, says):
    with pytest.raises(InputError, match=says):
        rendered(prompt, template=template, chat=chat)


# Token ids and sequences.


@pytest.mark.parametrize(
    ("prompts", "plain"),
    [
        (np.array([104, 105]), [[104, 105]]),
        (torch.tensor([104, 105]), [[104, 105]]),
        ([np.int64(104), np.int32(105)], [[104, 105]]),
        ((104, 105), [[104, 105]]),
        (np.array([[104], [105]]), [[104], [105]]),
        ([np.array([104]), (105,), "hi"], [[104], [105], "hi"]),
        (tuple(HI), [HI]),
        ([HI, tuple(HI)], [HI, HI]),
    ],
)
def test_arrays_and_tuples_are_prompts_as_lists_are(prompts, plain):
    got = as_prompts(prompts)
    assert got == plain
    for prompt in got:
        ids = rendered(prompt).ids
        assert {type(token) for token in ids} == {int}


@pytest.mark.parametrize("prompts", [[True, False], [1.5], np.array([1.5]), [None], [[1, "a"]], [HI[0], "hi"]])
def test_what_is_no_prompt_is_refused_in_one_line(prompts):
    with pytest.raises(InputError, match=r"(a prompt is|prompts are)"):
        [rendered(prompt) for prompt in as_prompts(prompts)]
    with pytest.raises(InputError, match="prompts are texts, lists of token ids or"):
        as_prompts(np.array(5))


def test_a_rendered_prompt_runs():
    from parallel_reason import Session
    from parallel_reason.dialects import bind

    over = engine()
    session = Session(over, bind("npr", over.tokenizer))
    [trace] = asyncio.run(session.run(np.array([104, 105])))
    assert trace.prompt == "hi"
