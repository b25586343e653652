"""The model that is prepared: a folder, a Hub id or a GGUF file, copied as safetensors into a new folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_reason.engines.models import check_model, load_tokenizer
from parallel_reason.errors import InputError, ModelError, first_line
from parallel_reason.prepare.rows import INDEX

# What a model folder holds beside its weights; ``*.py`` is a model's own code, which only the user can allow to run.
KEPT = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py", "*.md", "LICENSE*")
SHARD = "5GB"  # the largest file that is written where weights are converted


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model is taken from.

    Attributes:
        name: as the user gave it.
        folder: where its files lie.
        gguf: the name of its GGUF file, if it is one.
    """

    name: str
    folder: Path
    gguf: str | None = None

    @classmethod
    def of(cls, model: str) -> "Source":
        """A folder in Hugging Face layout, a GGUF file or a folder with one, or a Hub id.

        Raises:
            InputError: a folder with several GGUF files and no other model.
            ModelError: nothing is there.
        """
        path = Path(model).expanduser()
        if path.suffix == ".gguf" and path.is_file():
            return cls(model, path.parent, path.name)
        if path.is_dir() and not (path / "config.json").is_file() and (found := sorted(path.glob("*.gguf"))):
            if len(found) > 1:
                raise InputError(f"{model!r} has {len(found)} GGUF files: give one, such as {str(found[0])!r}")
            return cls(model, path, found[0].name)
        check_model(model)
        return cls(model, path if path.is_dir() else _downloaded(model))

    def tokenizer(self) -> Any:
        """Its tokenizer.

        Raises:
            ModelError: there is none, or no package that reads it.
        """
        fix = "take a model that has one, or put its tokenizer files into the folder"
        return load_tokenizer(str(self.folder), fix, gguf_file=self.gguf)

    def copy(self, folder: Path) -> None:
        """Copy it to an empty folder. Safetensors stay as they are; weights of another kind are loaded and saved.

        Memory: nothing for safetensors, otherwise the whole model, a GGUF file in float32.

        Raises:
            ModelError: the weights cannot be read.
        """
        weights = [] if self.gguf else _safetensors(self.folder)
        if not weights:
            self._convert(folder)
        if not self.gguf:
            kept = [file for pattern in KEPT for file in self.folder.glob(pattern) if file.is_file()]
            for file in [*weights, *(file for file in kept if weights or not file.name.endswith(".index.json"))]:
                shutil.copy(file, folder / file.name)

    def _convert(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        options: dict[str, Any] = {"gguf_file": self.gguf, "dtype": "float32"} if self.gguf else {"dtype": "auto"}
        try:
            model = AutoModelForCausalLM.from_pretrained(self.folder, **options)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise ModelError(f"transformers cannot load {self.name!r}: {first_line(error)}") from error
        config = model.config
        if self.gguf:  # what it was quantised with, and was undone in loading
            del config.quantization_config
        with torch.device("meta"):
            plain = type(model)(config)
        plain.load_state_dict(model.state_dict(), assign=True)
        plain.tie_weights()
        plain.generation_config = model.generation_config
        plain.save_pretrained(folder, max_shard_size=SHARD)


def _safetensors(folder: Path) -> list[Path]:
    """The files of a folder that hold its weights, and not those of a copy in another format beside them.

    Raises:
        ModelError: its index names a file that is not there.
    """
    if not (folder / INDEX).is_file():
        one = folder / "model.safetensors"
        return [one] if one.is_file() else sorted(folder.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads((folder / INDEX).read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{INDEX} of {str(folder)!r} cannot be read: {first_line(error)}") from None
    missing = next((name for name in names if Path(name).name != name or not (folder / name).is_file()), None)
    if missing is not None:
        raise ModelError(f"{INDEX} of {str(folder)!r} names {missing!r}, which is no file in that folder")
    return [folder / name for name in names]


def _downloaded(model: str) -> Path:
    """The files of a Hub id: from the cache, or downloaded into it."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model, allow_patterns=[*KEPT, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(model, allow_patterns=[*KEPT, "*.bin"]))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot get {model!r} from the Hub: {first_line(error)}; give a folder") from None
    return folder
