"""Rows of new tokens in the embeddings and the output layer of a folder of safetensors.

Only the files that hold these two tensors are written anew, so memory is bounded by the largest of them, sharded
checkpoints stay sharded, and quantised layers in between are not touched.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from parallel_reason.errors import ModelError, first_line

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"


def vocabulary_tensors(folder: Path) -> dict[str, str]:
    """The tensors with a row for each token, and the file of each: embeddings, and the output layer if it has its own.

    Raises:
        ModelError: they cannot be found, such as those of an output layer that is quantised.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        except (ValueError, KeyError, ImportError, OSError) as error:
            raise ModelError(f"transformers does not know this kind of model: {first_line(error)}") from None
    inputs, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is None or output.weight is inputs.weight
    names = {id(module): name for name, module in model.named_modules()}
    wanted = [(f"{names[id(inputs)]}.weight", True)]
    if output is not None:
        wanted.append((f"{names[id(output)]}.weight", not tied))
        wanted.append((f"{names[id(output)]}.bias", getattr(output, "bias", None) is not None))
    files: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            files |= dict.fromkeys(tensors.keys(), file.name)
    found: dict[str, str] = {}
    for name, needed in wanted:
        named = _named(name, list(files))
        if len(named) > 1 or (needed and not named):
            raise ModelError(f"the weights have {len(named)} tensors named {name}, which need one row a token")
        found |= {key: files[key] for key in named}
    return found


def _named(name: str, keys: list[str]) -> list[str]:
    """The keys of a checkpoint that a parameter may have: its own name, or one with more or fewer prefixes."""
    if name in keys:
        return [name]
    return [key for key in keys if key.endswith(f".{name}") or name.endswith(f".{key}")]


def write_rows(folder: Path, words: Mapping[int, list[int]]) -> tuple[int, int]:
    """Give tokens their rows, each the mean of the rows of its words, in the dtype of the weights.

    Rows that are there already beyond the tokenizer's tokens are used; more are made only where they are needed.

    Args:
        words: for each new token id, the token ids of its words.

    Returns:
        How many rows there were, and how many there are.

    Raises:
        ModelError: a tensor that has no row for each token, or is not in floating point.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    found = vocabulary_tensors(folder)
    sizes, grown_bytes = set(), 0
    for file in sorted(set(found.values())):
        with safe_open(folder / file, "pt") as opened:
            tensors, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
        for name in (name for name, where in found.items() if where == file):
            old = tensors[name]
            if not old.is_floating_point():
                raise ModelError(f"tensor {name} has dtype {old.dtype}: rows can be added to floating point only")
            tensors[name] = _with_rows(old, words)
            sizes.add((len(old), len(tensors[name])))
            grown_bytes += tensors[name].nbytes - old.nbytes
        if words:
            save_file(tensors, folder / f"{file}.new", metadata)
            shutil.copymode(folder / file, folder / f"{file}.new")
            (folder / f"{file}.new").replace(folder / file)
    if len(sizes) != 1:
        raise ModelError(
            f"embeddings and output layer have {sorted(before for before, _ in sizes)} rows; they must agree"
        )
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_bytes())
        index["metadata"]["total_size"] += grown_bytes
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return sizes.pop()


def _with_rows(old: "Tensor", words: Mapping[int, list[int]]) -> "Tensor":
    """``old`` with a row for each new token; [rows, width], or [rows] for a bias."""
    rows = max(len(old), *(token + 1 for token in words)) if words else len(old)
    new = old.new_empty(rows, *old.shape[1:])
    new[: len(old)] = old
    unknown = [row for row in range(len(old), rows) if row not in words]  # tokens that the model has no row for
    if unknown:
        new[unknown] = old.float().mean(0).to(old.dtype)
    for token, pieces in words.items():
        new[token] = old[pieces].float().mean(0).to(old.dtype)
    return new
