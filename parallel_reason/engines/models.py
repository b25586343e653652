"""The folder, or Hub id, that a model is loaded from."""

import os
from pathlib import Path
from typing import Any

from parallel_reason.errors import ModelError, first_line


def check_model(model: str) -> None:
    """Check that there can be a model, before an engine spends time on starting.

    Raises:
        ModelError: ``model`` looks like a path, and no folder with a ``config.json`` is there.
    """
    path = Path(os.path.expanduser(model))  # not Path.expanduser, which raises for an unknown ~user
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"no model in {model!r}: the folder has no config.json")
    if not path.exists() and (path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1):
        raise ModelError(f"no model {model!r}: give a folder in Hugging Face layout, or a Hub id such as Qwen/Qwen3-8B")


def load_tokenizer(name: str, fix: str) -> Any:
    """Load a tokenizer with transformers.

    Args:
        name: a folder or Hub id.
        fix: what the caller can do when there is none; the error message ends with it.

    Raises:
        ModelError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"no tokenizer in {name!r} ({first_line(error)}); {fix}") from None
