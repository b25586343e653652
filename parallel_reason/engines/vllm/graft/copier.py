"""KV of single tokens, copied from slot to slot of vLLM's paged cache."""

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_reason.engines.vllm.graft import compat

Ints = NDArray[np.int64]


class Copier:
    """For all layers of one worker; they have one layout, since they are one KV cache group."""

    def __init__(self, layers: dict[str, torch.Tensor], block_size: int) -> None:
        """Learn where a token lies in a block of these layers, each [blocks, heads, block size, key and value]."""
        self.layers = list(layers.values())
        self.block_size = block_size
        self.device = self.layers[0].device
        self._places = compat.cpu_places(self.layers[0], block_size) if self.device.type == "cpu" else None

    def __call__(self, sources: Ints, targets: Ints) -> None:
        """Copy; all sources are read before a target is written."""
        source, target = (torch.from_numpy(slots).to(self.device) for slots in (sources, targets))
        if self._places is not None:
            self._copy_packed(self._elements(source, self._places), self._elements(target, self._places))
            return
        for layer in self.layers:
            tokens = layer.shape[2]  # vLLM may cut its blocks smaller for a kernel
            layer[target // tokens, :, target % tokens] = layer[source // tokens, :, source % tokens]

    def _copy_packed(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Kernels for CPUs interleave the tokens of a block, so copy element by element."""
        for layer in self.layers:
            flat = layer.view(-1)
            flat.index_copy_(0, target, flat.index_select(0, source))

    def _elements(self, slots: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Where in a layer lies what these slots hold, [slots x heads x key and value]."""
        _, heads, tokens, width = self.layers[0].shape
        rows = (slots // self.block_size)[:, None] * heads + torch.arange(heads)
        return (rows[..., None] * (tokens * width) + places[slots % self.block_size][:, None]).view(-1)
