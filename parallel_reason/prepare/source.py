"""The model that is prepared: a folder, a Hub id or a GGUF file, copied as safetensors into a new folder."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_reason.engines.models import check_model, load_tokenizer
from parallel_reason.errors import InputError, ModelError, first_line

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
        safetensors = not self.gguf and any(self.folder.glob("*.safetensors"))
        if not safetensors:
            self._convert(folder)
        if not self.gguf:
            for pattern in (*KEPT, *["*.safetensors"] * safetensors):
                for file in self.folder.glob(pattern):
                    if file.is_file() and (safetensors or not file.name.endswith(".index.json")):
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
