"""Takes the weights of a policy to the engine that samples, through a folder.

It has the methods of TRL's ``WeightTransferProtocol``, so that TRL's own trainers can use it.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from parallel_reason import ParallelLLM


class FolderTransfer:
    """Writes every version to a folder of its own, has the engine load it, and removes the one before.

    The engine finishes or keeps its requests, drops its prefix cache and counts the version up; see
    `Session.update_weights`. A folder has its name only once it is whole.

    Attributes:
        versions: how many were sent.
        bytes_sent: of the newest.
    """

    def __init__(self, llm: ParallelLLM, folder: Path, config: Any, tokenizer: Any) -> None:
        """``config`` and ``tokenizer`` are the model's; they are written beside the weights."""
        self._llm = llm
        self._folder = folder
        self._config = config
        self._tokenizer = tokenizer
        self._newest: Path | None = None
        self.versions = 0
        self.bytes_sent = 0

    def init_weight_transfer(self) -> None:
        """Make the folder, empty: what an earlier run left in it is of no use."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def pause(self) -> None:
        """The engine pauses by itself while it loads."""

    def send_weights(self, iterator: Iterator[tuple[str, Tensor]]) -> None:
        """Send all weights, by name.

        Raises:
            OSError: they cannot be written; the engine keeps those it has.
            EngineError: the engine cannot load them.
        """
        folder = self._folder / f"version-{self.versions + 1}"
        unfinished = folder.with_suffix(".unfinished")
        unfinished.mkdir()
        self._config.save_pretrained(unfinished)
        self._tokenizer.save_pretrained(unfinished)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in iterator}
        save_file(weights, unfinished / "model.safetensors", metadata={"format": "pt"})
        os.replace(unfinished, folder)
        self._llm.update_weights(str(folder))
        if self._newest is not None:
            shutil.rmtree(self._newest)
        self._newest = folder
        self.versions += 1
        self.bytes_sent = sum(tensor.nbytes for tensor in weights.values())

    def resume(self) -> None:
        """The engine goes on by itself."""

    def destroy(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._folder, ignore_errors=True)
