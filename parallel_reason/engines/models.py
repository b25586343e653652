"""The folder, or Hub id, that a model is loaded from: whether one is there, its tokenizer, its ends of text."""

import json
import os
from pathlib import Path
from typing import Any

from parallel_reason.errors import ModelError, first_line

ADD_TOKENIZER = "copy the files of the model's tokenizer into it"
OF_GGUF = "make a folder of a GGUF file with parallel-reason prepare"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")


def check_model(model: str) -> None:
    """Check that there can be a model, before an engine spends time on starting.

    Raises:
        ModelError: ``model`` looks like a path, and no folder with a ``config.json`` is there; or it is a GGUF file.
    """
    path = Path(os.path.expanduser(model))  # not Path.expanduser, which raises for an unknown ~user
    if path.is_file():
        fix = OF_GGUF if path.suffix == ".gguf" else "give a folder in Hugging Face layout"
        raise ModelError(f"{model!r} is a file, not a model folder; {fix}")
    if path.is_dir() and not (path / "config.json").is_file():
        fix = f"; {OF_GGUF}" if any(path.glob("*.gguf")) else ""
        raise ModelError(f"no model in {model!r}: the folder has no config.json{fix}")
    if not path.exists() and (path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1):
        raise ModelError(f"no model {model!r}: give a folder in Hugging Face layout, or a Hub id such as Qwen/Qwen3-8B")


def check_tokenizer(name: str, fix: str) -> None:
    """Check that a folder has a tokenizer, before an engine spends time on starting.

    Raises:
        ModelError: it has none; the message ends with ``fix``.
    """
    if os.path.isdir(name) and not any(Path(name, file).is_file() for file in TOKENIZER_FILES):
        raise ModelError(f"no tokenizer in {name!r}: the folder has no {TOKENIZER_FILES[0]}; {fix}")


def load_tokenizer(name: str, fix: str, gguf_file: str | None = None) -> Any:
    """Load a tokenizer with transformers.

    Args:
        name: a folder or Hub id.
        fix: what the caller can do when there is none; the error message ends with it.
        gguf_file: the file in the folder that holds it, if that is a GGUF file.

    Raises:
        ModelError: there is none.
    """
    from transformers import AutoTokenizer

    if not gguf_file:
        check_tokenizer(name, fix)
    try:
        return AutoTokenizer.from_pretrained(name, gguf_file=gguf_file)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"no tokenizer in {name!r} ({first_line(error)}); {fix}") from None


def named_ends(name: str) -> frozenset[int]:
    """The ends of text that the generation config of a folder or Hub id names, or else its model config.

    Empty where neither can be had, as beside a tokenizer alone.
    """
    from transformers.utils import cached_file

    for file in ("generation_config.json", "config.json"):
        try:
            place = cached_file(name, file)  # None, or an error, if there is none
            found = json.loads(Path(place).read_bytes()) if place else None
        except (OSError, ValueError):  # no such file, or none of JSON
            continue
        parts = [found] if isinstance(found, dict) else []
        parts += [part["text_config"] for part in parts if isinstance(part.get("text_config"), dict)]
        named: object = next((part["eos_token_id"] for part in parts if part.get("eos_token_id") is not None), [])
        ends = {token for token in (named if isinstance(named, list) else [named]) if isinstance(token, int)}
        if ends:
            return frozenset(ends)
    return frozenset()
