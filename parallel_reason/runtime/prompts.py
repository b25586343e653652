"""What a caller may give as a prompt, and how it becomes token ids."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

from parallel_reason.engines.base import Engine
from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.prompts import PromptTemplate, load
from parallel_reason.runtime.chat import ChatOptions, templated
from parallel_reason.text import decode
from parallel_reason.trace import Message

__all__ = ["ChatOptions", "Prompt", "RenderedPrompt", "as_prompts", "encoded", "render", "render_all"]

Prompt = str | list[int] | list[Message]
TemplateName = str | os.PathLike[str]


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
    """One prompt, or a sequence of them, as a list. Arrays and tuples of token ids become lists.

    Raises:
        InputError: neither.
    """
    given = _plain(prompts)
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise InputError(f"prompts are texts, lists of token ids or lists of chat messages, not {prompts!r:.60}")
    if given and isinstance(given[0], Integral | dict):
        return [cast(Prompt, list(given))]
    return [cast(Prompt, _plain(prompt)) for prompt in given]


def _plain(value: Any) -> Any:
    """Arrays of numpy and torch, and tuples, as lists; all else as it is."""
    if isinstance(value, tuple):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value


def render_all(
    prompts: list[Prompt],
    engine: Engine,
    limits: Limits,
    dialect: str,
    template: TemplateName | None,
    chat: ChatOptions | dict[str, Any] | None,
) -> list[RenderedPrompt]:
    """Prompts as `render` makes them, of what a caller gave.

    Args:
        dialect: in which a template will be used.
        template: the name or the file of a prompt of `parallel_reason.prompts`.
    """
    loaded = None if template is None else load(template, dialect=dialect)
    options = None if chat is None else ChatOptions.from_caller("chat", chat)
    return [render(one, engine, limits, template=loaded, chat=options) for one in prompts]


def render(
    prompt: Prompt,
    engine: Engine,
    limits: Limits,
    *,
    template: PromptTemplate | None = None,
    chat: ChatOptions | None = None,
) -> RenderedPrompt:
    """A prompt as text and as token ids.

    Args:
        template: the prompt is a problem, a text, that is put into it.
        chat: how the chat template is applied; with it, a text is one message of the user.

    Raises:
        InputError: it is empty, of another type, not in the vocabulary, or leaves no room to answer; or the template
            or the options do not fit it.
    """
    suffix = ""
    if template is not None:
        prompt, chat, suffix = _filled(template, prompt, chat)
    elif chat is not None and isinstance(prompt, str) and prompt.strip():
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(prompt, str):
        rendered = RenderedPrompt(prompt, encoded(prompt, engine) if prompt.strip() else [])
    elif isinstance(prompt, list) and all(isinstance(item, Integral) and not isinstance(item, bool) for item in prompt):
        if chat is not None and prompt:
            raise InputError("chat options go with chat messages or a text, not with token ids")
        rendered = _ids(cast(list[int], prompt), engine)
    elif isinstance(prompt, list) and all(isinstance(item, dict) for item in prompt):
        rendered = _chat(cast(list[Message], prompt), engine, chat or ChatOptions(), suffix)
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


def _filled(
    template: PromptTemplate, problem: Prompt, chat: ChatOptions | None
) -> tuple[Prompt, ChatOptions | None, str]:
    """A template with the problem in it, the options under which it is rendered, and how the reply begins."""
    if isinstance(problem, str) and not problem.strip():
        raise InputError("the prompt is empty")
    prompt = template.render(cast(str, problem))
    if isinstance(prompt, str):
        if chat is not None:
            raise InputError(f"prompt {template.name!r} is a raw text, which takes no chat options")
        return prompt, None, ""
    chat = chat or ChatOptions()
    merged = {**template.chat_template_kwargs, **chat.chat_template_kwargs}
    return prompt, chat.model_copy(update={"chat_template_kwargs": merged}), template.suffix


def encoded(text: str, engine: Engine, **options: Any) -> list[int]:
    """A text as token ids; its special tokens count as text of the prompt, and its begin of sentence is not doubled."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start} of the prompt is half of a character ({text[error.start]!r}): give valid Unicode"
        ) from None
    tokenizer = engine.tokenizer
    ids = list(tokenizer.encode(text, **options))
    begins = tokenizer.bos_token_id
    if begins is not None and ids[:2] == [begins, begins] and text.count(tokenizer.bos_token) < ids.count(begins):
        ids = ids[1:]
    unknown = tokenizer.unk_token_id
    if unknown is not None and ids.count(unknown) > text.count(tokenizer.unk_token):
        raise InputError(f"{engine.model} has no token for a part of the prompt {text!r:.60}")
    return ids


def _ids(ids: list[int], engine: Engine) -> RenderedPrompt:
    wrong = next((token for token in ids if not 0 <= token < engine.vocabulary), None)
    if wrong is not None:
        raise InputError(f"token id {wrong} is outside the vocabulary of {engine.model}, 0 to {engine.vocabulary - 1}")
    ids = [int(token) for token in ids]
    return RenderedPrompt(decode(engine.tokenizer, ids), ids)


def _chat(messages: list[Message], engine: Engine, chat: ChatOptions, suffix: str) -> RenderedPrompt:
    if not messages:
        return RenderedPrompt("", [])
    text = templated(messages, engine, chat)
    written = suffix.strip() and text.rstrip().endswith(suffix.strip())  # some templates write <think> themselves
    text += "" if written else suffix
    return RenderedPrompt(text, encoded(text, engine, add_special_tokens=False), messages)
