"""Chat messages through the chat template of a model, with the names and the meaning of vLLM's ``LLM.chat``."""

import inspect
from typing import Any

from pydantic import Field

from parallel_reason.engines.base import Engine
from parallel_reason.errors import InputError, first_line
from parallel_reason.record import FrozenRecord
from parallel_reason.trace import Message

VARIABLES = ("tools", "documents")  # of chat templates, which transformers takes by name


class ChatOptions(FrozenRecord):
    """How the chat template of a model is applied; names and meaning are those of vLLM's ``LLM.chat``.

    Attributes:
        chat_template: another template than the model's own, as text, or the name of one of the tokenizer's templates.
        add_generation_prompt: write what begins a reply.
        continue_final_message: the last message is the start of a reply, and the model goes on with it.
        chat_template_kwargs: more variables of the template, such as ``enable_thinking``.
    """

    chat_template: str | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)


def templated(messages: list[Message], engine: Engine, chat: ChatOptions) -> str:
    """The text of messages, at least one, with the special tokens that the chat template writes.

    Raises:
        InputError: a message is no message, the options contradict one another or the messages, or there is no
            template, or it refuses them.
    """
    _check(messages, engine, chat)
    try:
        text: str = engine.tokenizer.apply_chat_template(
            messages,
            chat_template=chat.chat_template,
            add_generation_prompt=chat.add_generation_prompt,
            continue_final_message=chat.continue_final_message,
            tokenize=False,
            **chat.chat_template_kwargs,
        )
    except Exception as error:  # the template is a program of the model or the caller, and may raise anything
        raise InputError(f"the chat template of {engine.model} refuses the messages: {first_line(error)}") from None
    return text


def _check(messages: list[Message], engine: Engine, chat: ChatOptions) -> None:
    """Refuse what a chat template would take in silence, or fail on with another message."""
    for number, message in enumerate(messages):
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str | list):
            raise InputError(
                f"chat message {number} is {message!r:.60}; it needs a text under 'role' and one under 'content'"
            )
    if not engine.tokenizer.chat_template and not chat.chat_template:
        raise InputError(f"{engine.model} has no chat template; give its prompt as a text")
    if chat.continue_final_message and chat.add_generation_prompt:
        raise InputError("continue_final_message=True needs add_generation_prompt=False: a reply is continued or new")
    if chat.continue_final_message and messages[-1]["role"] != "assistant":
        raise InputError(
            f"continue_final_message goes on with a last message of the assistant, not of {messages[-1]['role']!r:.60}"
        )
    taken = inspect.signature(engine.tokenizer.apply_chat_template).parameters
    wrong = next((name for name in chat.chat_template_kwargs if name in taken and name not in VARIABLES), None)
    if wrong is not None:
        raise InputError(f"chat_template_kwargs has {wrong!r}, which is no variable of a chat template")
