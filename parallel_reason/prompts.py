"""What a caller may give as a prompt, and how it becomes token ids."""

from typing import Any

from parallel_reason.engines.base import Engine
from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.text import decode

Message = dict[str, Any]
Prompt = str | list[int] | list[Message]


def encode(prompt: Prompt, engine: Engine, limits: Limits) -> tuple[str, list[int]]:
    """A prompt as text for people and as token ids for the engine.

    Raises:
        InputError: it is empty, of another type, not in the vocabulary, or leaves no room to answer.
    """
    tokenizer = engine.tokenizer
    if isinstance(prompt, str):
        text, ids = prompt, list(tokenizer.encode(prompt)) if prompt.strip() else []
    elif isinstance(prompt, list) and all(isinstance(item, int) for item in prompt):
        ids = [int(item) for item in prompt]  # type: ignore[arg-type]
        wrong = next((token for token in ids if not 0 <= token < engine.vocabulary), None)
        if wrong is not None:
            raise InputError(
                f"token id {wrong} is outside the vocabulary of {engine.model}, 0 to {engine.vocabulary - 1}"
            )
        text = decode(tokenizer, ids)
    elif isinstance(prompt, list) and all(isinstance(item, dict) for item in prompt):
        if not tokenizer.chat_template:
            raise InputError(f"{engine.model} has no chat template; give its prompt as a text")
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = list(tokenizer.encode(text, add_special_tokens=False))
    else:
        raise InputError(f"a prompt is a text, a list of token ids or a list of chat messages, not {prompt!r:.60}")
    if not ids:
        raise InputError("the prompt is empty")
    unknown = tokenizer.unk_token_id
    if isinstance(prompt, str) and unknown is not None and unknown in ids:
        raise InputError(f"{engine.model} has no token for a part of the prompt {prompt!r:.60}")
    window = min(engine.context, limits.context or engine.context)
    if len(ids) >= window:
        raise InputError(
            f"the prompt has {len(ids)} tokens and the window {window}: shorten it, or load a model with a larger one"
        )
    return text, ids
