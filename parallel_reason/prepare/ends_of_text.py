"""The ends of text of a model, all of them, in its generation config."""

import json
from pathlib import Path
from typing import Any

REPLY = "REPLY"


def write_ends_of_text(folder: Path, tokenizer: Any) -> list[int]:
    """Complete ``eos_token_id`` in ``generation_config.json``, which is made if there is none; its other keys stay.

    A model may end a reply with another token than its tokenizer's end of text, as base models with a chat template do:
    engines that know only one of them run on.

    Returns:
        Those of the generation config, of the model's config, of the tokenizer, and the end of a reply in its chat
        template; each once, in this order.
    """
    file = folder / "generation_config.json"
    generation: dict[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {}
    config = json.loads((folder / "config.json").read_bytes())
    named = [generation, config.get("text_config") or {}, config]
    ends = [*(token for part in named for token in _ids(part.get("eos_token_id"))), *_ids(tokenizer.eos_token_id)]
    ends = list(dict.fromkeys([*ends, *_ids(end_of_reply(tokenizer))]))
    if ends != _ids(generation.get("eos_token_id")):
        generation.pop("_from_model_config", None)  # transformers would fill it from the model's config again
        generation["eos_token_id"] = ends[0] if len(ends) == 1 else ends
        file.write_text(json.dumps(generation, indent=2) + "\n")
    return ends


def end_of_reply(tokenizer: Any) -> int | None:
    """The special token that the chat template writes after an assistant's message; None if there is none."""
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": REPLY}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # the template is a program of the model, which may raise anything
        return None
    _, found, after = text.rpartition(REPLY)
    ids = tokenizer.encode(after.strip(), add_special_tokens=False) if found else []
    first = tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return ids[0] if first is not None and first.special else None


def _ids(value: Any) -> list[int]:
    return [token for token in (value if isinstance(value, list) else [value]) if token is not None]
