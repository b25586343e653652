"""The folder, or Hub id, that a model is loaded from."""

from pathlib import Path
from typing import Any

from parallel_reason.errors import ModelError, first_line


def check_model(model: str) -> None:
    """Refuse a path where no model lies, before anything slow begins.

    Raises:
        ModelError: ``model`` looks like a path and holds no ``config.json``.
    """
    path = Path(model).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"no model in {model!r}: the folder has no config.json")
    if not path.exists() and (path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1):
        raise ModelError(f"no model {model!r}: give a folder in Hugging Face layout, or a Hub id such as Qwen/Qwen3-8B")


def load_tokenizer(name: str, fix: str) -> Any:
    """The tokenizer alone, with transformers.

    Raises:
        ModelError: there is none; it ends with ``fix``.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"no tokenizer in {name!r} ({first_line(error)}); {fix}") from None
