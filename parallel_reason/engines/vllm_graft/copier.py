"""KV of single tokens, copied from slot to slot of vLLM's paged cache."""

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_reason.engines.vllm_graft import compat

Ints = NDArray[np.int64]


class Copier:
    """For all layers of one worker; they have one layout."""

    def __init__(self, layers: dict[str, torch.Tensor], block_size: int) -> None:
        """Learn where a token lies in a block of these layers, each [blocks, heads, block size, key and value]."""
        self.layers = list(layers.values())
        self.block_size = block_size
        self.device = self.layers[0].device
        self._places: dict[tuple[torch.dtype, int], torch.Tensor] = {}
        if self.device.type == "cpu":
            for layer in self.layers:
                kind = layer.dtype, layer.shape[3]
                self._places[kind] = self._places.get(kind, compat.cpu_places(layer, block_size))

    def __call__(self, sources: Ints, targets: Ints) -> None:
        """Copy; all sources are read before a target is written."""
        source, target = (torch.from_numpy(slots).to(self.device) for slots in (sources, targets))
        for layer in self.layers:
            if self.device.type == "cpu":
                self._copy_packed(layer, source, target)
            else:
                tokens = layer.shape[2]  # vLLM may cut its blocks smaller for a kernel
                layer[target // tokens, :, target % tokens] = layer[source // tokens, :, source % tokens]

    def _copy_packed(self, layer: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> None:
        """Kernels for CPUs interleave the tokens of a block."""
        blocks, heads, tokens, width = layer.shape
        places = self._places[layer.dtype, width]  # of a token's elements in its block, [block size, key and value]
        flat = layer.view(blocks * heads, tokens * width)
        head = torch.arange(heads)

        def elements(slots: torch.Tensor) -> torch.Tensor:  # [slots, heads, key and value]
            rows = (slots // self.block_size)[:, None] * heads + head
            return rows[..., None] * (tokens * width) + places[slots % self.block_size][:, None]

        values = flat.view(-1)
        values[elements(target)] = values[elements(source)]
