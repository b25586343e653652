"""Rotary positions below a token's place in its sequence.

vLLM counts the tokens of a sequence; after a graft the next position is lower than that. Everything in vLLM but the
rotary embedding needs the count, so only the model is given other positions: the count, less the offset of the slot
that the token's KV is written to. Nothing depends on the order of the batch, and the result always lies in one buffer,
as CUDA graphs need it.
"""

from functools import cache
from typing import Any

import torch

PREFIX = "Shifted_"
_originals: dict[str, Any] = {}


class SlotOffsets:
    """Position offsets of all slots of the KV cache of this process.

    Attributes:
        table: [slots]; None before the cache is made.
        unused: whether all are 0, on a device where no forward pass is recorded to be played again.
        models: how many models that use it were built.
    """

    table: torch.Tensor | None = None
    unused = False
    models = 0


def register_models() -> None:
    """Have vLLM load `shifted` subclasses of all causal language models in its registry."""
    from vllm import ModelRegistry

    for name, original in list(ModelRegistry.models.items()):
        if name.endswith("ForCausalLM") and name not in _originals:
            _originals[name] = original
            ModelRegistry.register_model(name, f"{__name__}:{PREFIX}{name}")


def __getattr__(name: str) -> Any:
    """``Shifted_<architecture>``, for the registry."""
    if not name.startswith(PREFIX):
        raise AttributeError(name)
    if not _originals:
        register_models()
    return shifted(name.removeprefix(PREFIX))


@cache
def shifted(architecture: str) -> type[Any]:
    """The class that vLLM has for an architecture, with positions less the offsets of their slots."""
    base: type[Any] = _originals[architecture].load_model_cls()

    class Shifted(base):  # type: ignore[misc]
        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            longest = vllm_config.scheduler_config.max_num_batched_tokens + 1024  # graphs pad
            self._shifted_positions = torch.zeros(longest, dtype=torch.int64)  # on the model's device
            SlotOffsets.models += 1

        def forward(self, input_ids: Any, positions: torch.Tensor, *rest: Any, **named: Any) -> Any:
            return super().forward(input_ids, shift(positions, self._shifted_positions), *rest, **named)

    Shifted.__name__ = base.__name__
    Shifted.__qualname__ = base.__qualname__
    return Shifted


def shift(positions: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Positions less the offsets of the slots of this forward, in ``out``; as they are where there are none."""
    from vllm.forward_context import get_forward_context

    if SlotOffsets.unused:
        return positions
    context = get_forward_context()
    slots_of_layers = context.slot_mapping
    if SlotOffsets.table is None or not slots_of_layers:  # while vLLM measures memory
        if SlotOffsets.table is not None and context.attn_metadata is not None:
            raise RuntimeError("vLLM does not say which slots this forward pass writes, so positions cannot be shifted")
        return positions
    slots = next(iter(slots_of_layers.values()))
    count = min(len(slots), len(positions))
    out = out[: len(positions)]
    out.copy_(positions)
    out[:count].sub_(SlotOffsets.table[slots[:count].clamp(min=0)])  # padding has slot -1
    return out
