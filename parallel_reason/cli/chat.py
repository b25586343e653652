"""Prompts as a call takes them: raw texts, chats, or problems for a template."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parallel_reason.cli.countdown import CountdownPrompts
from parallel_reason.cli.options import CHAT_OPTIONS
from parallel_reason.cli.prompts import GivenPrompt, tasks_of
from parallel_reason.cli.settings import settings
from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.prompts import load
from parallel_reason.runtime.chat import ChatOptions
from parallel_reason.runtime.prompts import Prompt, render
from parallel_reason.trace.trace import Message

OF_CALL = ("messages", "conversation", "tokenize", "add_generation_prompt", "continue_final_message", "chat_template")


@dataclass(frozen=True, slots=True)
class Call:
    """What `ParallelLLM.generate` is called with.

    Attributes:
        prompts: texts or chats.
        titles: what a person knows each by, [prompts].
        options: ``tasks``, ``prompt`` and ``chat``, as far as they were given.
        countdown: the prompts as problems, if the embedded model is to run them.
    """

    prompts: list[Prompt]
    titles: list[str]
    options: dict[str, Any]
    countdown: CountdownPrompts | None = None

    @property
    def raw(self) -> list[str]:
        """The prompts that are sent as they are."""
        return [] if "prompt" in self.options else [prompt for prompt in self.prompts if isinstance(prompt, str)]


def make_call(given: Sequence[GivenPrompt], params: Mapping[str, Any]) -> Call:
    """The call that a command's parameters ask for.

    Args:
        params: ``template``, ``chat``, ``system``, ``reply``, ``chat_option``, ``model``, ``dialect`` and ``engine`` of
            `options`.

    Raises:
        InputError: options that exclude one another, or that a prompt cannot be used with.
    """
    variables = settings(CHAT_OPTIONS, params["chat_option"], reserved=OF_CALL)
    template, chat = params["template"], params["chat"]
    flags = {"--system": params["system"], "--continue": params["reply"], CHAT_OPTIONS: variables or None}
    of_chats = [flag for flag, value in flags.items() if value is not None]
    options: dict[str, Any] = {}
    prompts: list[Prompt] = [one.prompt for one in given]
    if template is not None:
        clash = [flag for flag in of_chats if flag != CHAT_OPTIONS] + ["--chat"] * (chat is not None)
        chats = [one.place for one in given if not isinstance(one.prompt, str)]
        if clash or chats:
            what = f"{clash[0]} cannot be given with it" if clash else f"{chats[0]} is a chat already"
            raise InputError(f"--prompt {template} says all that the model reads, but for the problem: {what}")
        load(template, dialect=params["dialect"])
        options["prompt"] = template
    elif chat is False and of_chats:
        raise InputError(f"{of_chats[0]} is for chats: leave --no-chat out")
    elif chat or of_chats:
        prompts = [_chat(one, params["system"], params["reply"]) for one in given]
    continued = _continued(given, prompts)
    if variables or continued:
        options["chat"] = ChatOptions(
            add_generation_prompt=not continued, continue_final_message=continued, chat_template_kwargs=variables
        )
    if tasks := tasks_of(given):
        options["tasks"] = tasks
    call = Call(prompts, [one.title for one in given], options)
    if is_embedded(params) and call.raw == prompts:
        return replace(call, countdown=CountdownPrompts.read(call.raw))
    return call


def is_embedded(params: Mapping[str, Any]) -> bool:
    """Whether a command runs the embedded model."""
    return params["model"] is None and params["engine"] != "openai"


def _chat(given: GivenPrompt, system: str | None, reply: str | None) -> list[Message]:
    messages = [{"role": "user", "content": given.prompt}] if isinstance(given.prompt, str) else list(given.prompt)
    if system is not None:
        if messages[0].get("role") == "system":
            raise InputError(f"--system: {given.place} has a system message of its own")
        messages = [{"role": "system", "content": system}, *messages]
    return messages if reply is None else [*messages, {"role": "assistant", "content": reply}]


def _continued(given: Sequence[GivenPrompt], prompts: Sequence[Prompt]) -> bool:
    """Whether the chats end with the beginning of a reply.

    Raises:
        InputError: some do and some do not, and a call treats all alike.
    """
    replies: list[str] = []  # the chats that end with the beginning of a reply
    whole: list[str] = []
    for one, prompt in zip(given, prompts, strict=True):
        last = prompt[-1] if isinstance(prompt, list) else None
        (replies if isinstance(last, dict) and last.get("role") == "assistant" else whole).append(one.place)
    if replies and whole:
        raise InputError(
            f"{replies[0]} ends with the beginning of a reply and {whole[0]} with a message: put them in two files"
        )
    return bool(replies)


@dataclass(frozen=True, slots=True)
class _TokenizerAlone:
    """What `render` asks of an engine, where there is none yet; how much the engine takes is not known."""

    tokenizer: Any
    model: str
    context: int = sys.maxsize


def check_prompts(call: Call, tokenizer: Any, model: str, limits: Limits) -> None:
    """Find what is wrong with prompts before an engine spends time on starting.

    Raises:
        InputError: see `render`; of several prompts, it names the one.
    """
    engine: Any = _TokenizerAlone(tokenizer, model)
    options = {"chat": call.options["chat"]} if "chat" in call.options else {}
    if "prompt" in call.options:
        options["template"] = load(call.options["prompt"])
    for number, prompt in enumerate(call.prompts):
        try:
            render(prompt, engine, limits, **options)
        except InputError as error:
            raise InputError(f"prompt {number}: {error}" if len(call.prompts) > 1 else str(error)) from None


def sent_raw(call: Call, tokenizer: Any, chat: bool | None) -> bool:
    """Whether a chat model gets a text that holds nothing of its chat template, and nobody said that this is meant."""
    if chat is not None or not getattr(tokenizer, "chat_template", None):
        return False
    marks = [mark for mark in tokenizer.all_special_tokens if mark in str(tokenizer.chat_template)]
    return any(not any(mark in text for mark in marks) for text in call.raw)
