"""What a caller may give as a prompt, and how it becomes token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from jinja2 import TemplateError

from parallel_reason.engines.base import Engine
from parallel_reason.errors import InputError, first_line
from parallel_reason.limits import Limits
from parallel_reason.text import decode
from parallel_reason.trace import Message

Prompt = str | list[int] | list[Message]


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt as an engine takes it.

    Attributes:
        text: for people.
        ids: token ids, [tokens].
        messages: the chat messages that it was rendered from, if it was.
    """

    text: str
    ids: list[int]
    messages: list[Message] | None = None


def as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt, or a sequence of them, as a list.

    Raises:
        InputError: neither.
    """
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes):
        raise InputError(f"prompts are texts, lists of token ids or lists of chat messages, not {prompts!r:.60}")
    if prompts and isinstance(prompts[0], int | dict):
        return [cast(Prompt, list(prompts))]
    return [cast(Prompt, list(prompt) if isinstance(prompt, tuple) else prompt) for prompt in prompts]


def render(prompt: Prompt, engine: Engine, limits: Limits) -> RenderedPrompt:
    """A prompt as text and as token ids.

    Raises:
        InputError: it is empty, of another type, not in the vocabulary, or leaves no room to answer.
    """
    if isinstance(prompt, str):
        rendered = RenderedPrompt(prompt, _encoded(prompt, engine) if prompt.strip() else [])
    elif isinstance(prompt, list) and all(isinstance(item, int) for item in prompt):
        rendered = _ids(prompt, engine)  # type: ignore[arg-type]
    elif isinstance(prompt, list) and all(isinstance(item, dict) for item in prompt):
        rendered = _chat(prompt, engine)  # type: ignore[arg-type]
    else:
        raise InputError(f"a prompt is a text, a list of token ids or a list of chat messages, not {prompt!r:.60}")
    if not rendered.ids:
        raise InputError("the prompt is empty")
    window = min(engine.context, limits.context or engine.context)
    if len(rendered.ids) >= window:
        raise InputError(
            f"the prompt has {len(rendered.ids)} tokens and the window {window}: shorten it, or load a model with a "
            "larger one"
        )
    return rendered


def _encoded(text: str, engine: Engine, **options: Any) -> list[int]:
    """A text as token ids; its special tokens count as text of the prompt."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start} of the prompt is half of a character ({text[error.start]!r}): give valid Unicode"
        ) from None
    ids = list(engine.tokenizer.encode(text, **options))
    unknown = engine.tokenizer.unk_token_id
    if unknown is not None and ids.count(unknown) > text.count(engine.tokenizer.unk_token):
        raise InputError(f"{engine.model} has no token for a part of the prompt {text!r:.60}")
    return ids


def _ids(ids: list[int], engine: Engine) -> RenderedPrompt:
    wrong = next((token for token in ids if not 0 <= token < engine.vocabulary), None)
    if wrong is not None:
        raise InputError(f"token id {wrong} is outside the vocabulary of {engine.model}, 0 to {engine.vocabulary - 1}")
    return RenderedPrompt(decode(engine.tokenizer, ids), [int(token) for token in ids])


def _chat(messages: list[Message], engine: Engine) -> RenderedPrompt:
    if not messages:
        return RenderedPrompt("", [])
    for number, message in enumerate(messages):
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str | list):
            raise InputError(
                f"chat message {number} is {message!r:.60}; it needs a text under 'role' and one under 'content'"
            )
    if not engine.tokenizer.chat_template:
        raise InputError(f"{engine.model} has no chat template; give its prompt as a text")
    try:
        text = engine.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError, KeyError) as error:  # the template is the model's own program
        raise InputError(f"the chat template of {engine.model} refuses the messages: {first_line(error)}") from None
    return RenderedPrompt(text, _encoded(text, engine, add_special_tokens=False), messages)
