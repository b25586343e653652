"""A transformers model that attends over the KV pool, and the check that it can.

The check runs the model: all its layers must attend through transformers' attention interface, and a request that is
computed in chunks, in rows with another one, must give the same logits. So recurrent and convolutional layers are
refused.
"""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from parallel_reason.engines.models import ADD_TOKENIZER, load_tokenizer
from parallel_reason.engines.torch.attention import (
    IMPLEMENTATION,
    AttentionFunction,
    Prefill,
    StepAttention,
    current_attention,
    slot_index,
)
from parallel_reason.engines.torch.pool import NO_SLOTS, KVPool, LayerShape
from parallel_reason.errors import InputError, ModelError, first_line

ATTENTION = {"full_attention", "sliding_attention"}
MOST_TOKENS = 1 << 20  # slots of a pool by default, if they fit in half the free memory


@dataclass(slots=True)
class Model:
    """A loaded model.

    Attributes:
        name: what it was loaded from.
        net: the transformers module.
        shapes: of the KV of one token, by layer.
        windows: sliding windows of its layers, in tokens.
    """

    name: str
    net: Any
    tokenizer: Any
    device: torch.device
    shapes: dict[int, LayerShape] = field(default_factory=dict)
    windows: set[int] = field(default_factory=set)

    @classmethod
    def load(cls, name: str, dtype: str | None, device: str | None) -> "Model":
        """Load and check it.

        Raises:
            InputError: an unknown dtype or device.
            ModelError: it cannot be loaded, or cannot attend over the pool.
        """
        try:
            place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {device!r} cannot be used: {first_line(error)}") from None
        wanted = dtype or ("float32" if place.type == "cpu" else "auto")
        if wanted != "auto" and not isinstance(getattr(torch, wanted, None), torch.dtype):
            raise InputError(f"unknown dtype {dtype!r}; there is float32, bfloat16, float16 and auto")
        tokenizer = load_tokenizer(name, ADD_TOKENIZER)
        model = cls(name, _load(name, wanted).to(place).eval(), tokenizer, place)
        with torch.inference_mode():
            model._check()
        return model

    @property
    def config(self) -> Any:
        """Configuration of its text decoder."""
        return self.net.config.get_text_config()

    def context(self) -> int:
        """How many tokens every token can see: its position range, or a sliding window if that is shorter."""
        bounds = {int(self.config.max_position_embeddings), *self.windows}
        rope = getattr(self.config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":  # beyond, it scales the positions of a whole row anew
            bounds.add(int(rope["original_max_position_embeddings"]))
        return min(bounds)

    def load_weights(self, name: str) -> None:
        """Take the weights of another folder.

        Raises:
            ModelError: it cannot be loaded, or its weights have other names or shapes; those that are there stay.
        """
        other = _load(name, self.net.dtype)
        mine, theirs = ({key: value.shape for key, value in net.state_dict().items()} for net in (self.net, other))
        if mine != theirs:
            differs = next(key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key))
            raise ModelError(f"{name!r} has other weights than {self.name!r}: {differs} differs in shape")
        self.net.load_state_dict(other.state_dict())

    def eos_ids(self) -> frozenset[int]:
        """The model's own ends of text."""
        ids = self.net.generation_config.eos_token_id
        if ids is None:
            ids = self.config.eos_token_id
        named = set(ids) if isinstance(ids, list) else {ids}
        return frozenset(token for token in named | {self.tokenizer.eos_token_id} if token is not None)

    def pool(self, limit: int | None) -> KVPool:
        """An empty pool for its KV, of at most ``limit`` tokens; if None, `MOST_TOKENS` or half the free memory."""
        shapes = [self.shapes[layer] for layer in range(len(self.shapes))]
        pool = KVPool(shapes, limit or 0, self.net.dtype, self.device)
        if limit is None:
            pool.limit = min(MOST_TOKENS, _free_bytes(self.device) // 2 // pool.slot_bytes)
        return pool

    def forward(self, ids: list[int], positions: list[int], attention: AttentionFunction, rows: list[int]) -> Tensor:
        """One forward pass over a packed row.

        Args:
            ids, positions: [tokens].
            rows: places in the row after which logits are computed.

        Returns:
            Logits in fp32, [rows, vocabulary].
        """
        token = current_attention.set(attention)
        try:
            output = self.net(
                input_ids=torch.tensor([ids], device=self.device),
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=False,
                logits_to_keep=torch.tensor(rows, dtype=torch.int64, device=self.device),
            )
        finally:
            current_attention.reset(token)
        logits: Tensor = output.logits[0].float()
        return logits

    def _check(self) -> None:
        """Find the shapes of its KV and its windows, and raise ModelError if it cannot attend over the pool."""
        if not any("Rotary" in type(module).__name__ for module in self.net.modules()):
            raise self._refusal("has no rotary positions")
        if unknown := set(getattr(self.config, "layer_types", None) or ()) - ATTENTION:
            raise self._refusal(f"has layers of another kind ({', '.join(sorted(unknown))})")
        try:
            self.forward([0], [0], self._record_shapes, [0])
            if set(self.shapes) != set(range(self.config.num_hidden_layers)):
                raise self._refusal("has layers without attention, or with an attention of its own")
            whole, chunked = self._in_chunks([0, 1, 2, 3]), self._in_chunks([0, 1, 2], [3])
        except (TypeError, AttributeError, RuntimeError) as error:
            raise self._refusal(f"does not run ({first_line(error)})") from error
        if (whole - chunked).abs().max() > 0.05 * whole.abs().max():  # wide enough for the error of low precision
            raise self._refusal("carries something from token to token outside of attention")

    def _record_shapes(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        if any(options.get(name) is not None for name in ("s_aux", "position_bias")):
            raise self._refusal("adds sinks or biases to its attention")
        self.shapes[layer] = (key.shape[1], key.shape[3], value.shape[3])
        if window := options.get("sliding_window"):
            self.windows.add(int(window))
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])

    def _in_chunks(self, *chunks: list[int]) -> Tensor:
        """Logits after a request that is computed in chunks, each in one row with another request, [1, vocabulary]."""
        pool, slots = self.pool(16), NO_SLOTS
        for chunk in chunks:
            other, new = pool.take(3), pool.take(len(chunk))
            positions = [0, 1, 2, *range(len(slots), len(slots) + len(chunk))]
            slots = np.concatenate([slots, new])
            prefills = [
                Prefill(slice(0, 3), slot_index(other, self.device)),
                Prefill(slice(3, None), slot_index(slots, self.device)),
            ]
            row = torch.from_numpy(np.concatenate([other, new])).to(self.device)
            attention = StepAttention(pool, row, [], prefills)
            logits = self.forward([1, 1, 1, *chunk], positions, attention, [2 + len(chunk)])
        return logits

    def _refusal(self, reason: str) -> ModelError:
        kind = type(self.net).__name__
        return ModelError(
            f"engine 'torch' cannot run {self.name!r}: {kind} {reason}; take one with rotary attention in every layer, "
            "such as Llama, Mistral, Qwen or Gemma"
        )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _load(name: str, dtype: Any) -> Any:
    """A transformers module, loaded without a progress bar.

    Raises:
        ModelError: there is none.
    """
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=dtype, attn_implementation=IMPLEMENTATION)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"engine 'torch' cannot load {name!r}: {first_line(error)}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
