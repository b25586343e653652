"""A transformers model that attends over the pool, and the check that it can.

The check is by what the model does: all its layers must attend through transformers' attention interface, and it must
say the same of a request that it computes in parts, in rows with others. So recurrent and convolutional layers are out.
"""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from parallel_reason.engines.torch_attention import NAME, Layer, Prefill, Step, layer_of, places
from parallel_reason.engines.torch_kv import NONE, Pool, Shape
from parallel_reason.errors import InputError, ModelError, first_line

ATTENTION = {"full_attention", "sliding_attention"}
MOST_TOKENS = 1 << 20  # slots of a pool unless told otherwise; less where memory is short


@dataclass(slots=True)
class Model:
    """A model in memory.

    Attributes:
        name: what it was loaded from.
        shapes: of every layer's KV, (kv heads, key dim, value dim).
        windows: sliding windows of its layers.
    """

    name: str
    net: Any
    tokenizer: Any
    device: torch.device
    shapes: dict[int, Shape] = field(default_factory=dict)
    windows: set[int] = field(default_factory=set)

    @classmethod
    def load(cls, name: str, dtype: str | None, device: str | None) -> "Model":
        """Load and check it.

        Raises:
            InputError: an unknown dtype or device.
            ModelError: it cannot be loaded, or cannot attend over a pool.
        """
        try:
            place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {device!r} cannot be used: {first_line(error)}") from None
        wanted = dtype or ("float32" if place.type == "cpu" else "auto")
        if wanted != "auto" and not isinstance(getattr(torch, wanted, None), torch.dtype):
            raise InputError(f"unknown dtype {dtype!r}; there is float32, bfloat16, float16 and auto")
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            net = AutoModelForCausalLM.from_pretrained(name, dtype=wanted, attn_implementation=NAME).to(place)
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(f"engine 'torch' cannot load {name!r}: {first_line(error)}") from error
        finally:
            if bars:
                logging.enable_progress_bar()
        model = cls(name, net.eval(), tokenizer, place)
        with torch.inference_mode():
            model._check()
        return model

    @property
    def config(self) -> Any:
        """Configuration of the part that writes text."""
        return self.net.config.get_text_config()

    def context(self) -> int:
        """Tokens that every token sees: within all positions it was made for, and within every sliding window."""
        bounds = {int(self.config.max_position_embeddings), *self.windows}
        rope = getattr(self.config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":  # beyond, it turns all positions of a row in another way
            bounds.add(int(rope["original_max_position_embeddings"]))
        return min(bounds)

    def eos_ids(self) -> frozenset[int]:
        """The model's own ends of text."""
        ids = self.net.generation_config.eos_token_id
        if ids is None:
            ids = self.config.eos_token_id
        named = set(ids) if isinstance(ids, list) else {ids}
        return frozenset(token for token in named | {self.tokenizer.eos_token_id} if token is not None)

    def pool(self, limit: int | None) -> Pool:
        """An empty pool for its KV, of at most ``limit`` tokens; by itself of half the free memory at most."""
        shapes = [self.shapes[layer] for layer in range(len(self.shapes))]
        pool = Pool(shapes, limit or 0, self.net.dtype, self.device)
        if limit is None:
            pool.limit = min(MOST_TOKENS, _free_bytes(self.device) // 2 // pool.slot_bytes)
        return pool

    def forward(self, ids: list[int], positions: list[int], layer: Layer, rows: list[int]) -> Tensor:
        """One pass over a packed row; the logits after the tokens at ``rows`` in fp32, [rows, vocabulary]."""
        token = layer_of.set(layer)
        try:
            output = self.net(
                input_ids=torch.tensor([ids], device=self.device),
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=False,
                logits_to_keep=torch.tensor(rows, dtype=torch.int64, device=self.device),
            )
        finally:
            layer_of.reset(token)
        logits: Tensor = output.logits[0].float()
        return logits

    def _check(self) -> None:
        """Refuse what cannot attend over a pool; notes the shapes of the KV and the windows."""
        if not any("Rotary" in type(module).__name__ for module in self.net.modules()):
            raise self._refusal("has no rotary positions")
        if unknown := set(getattr(self.config, "layer_types", None) or ()) - ATTENTION:
            raise self._refusal(f"has layers of another kind ({', '.join(sorted(unknown))})")
        try:
            self.forward([0], [0], self._note, [0])
            if set(self.shapes) != set(range(self.config.num_hidden_layers)):
                raise self._refusal("has layers without attention, or with an attention of its own")
            whole, cut = self._in_parts([0, 1, 2, 3]), self._in_parts([0, 1, 2], [3])
        except (TypeError, AttributeError, RuntimeError) as error:
            raise self._refusal(f"does not run ({first_line(error)})") from error
        if (whole - cut).abs().max() > 0.05 * whole.abs().max():  # low precision alone is a little off, too
            raise self._refusal("carries something from token to token outside of attention")

    def _note(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        if any(options.get(name) is not None for name in ("s_aux", "position_bias")):
            raise self._refusal("adds sinks or biases to its attention")
        self.shapes[layer] = (key.shape[1], key.shape[3], value.shape[3])
        if window := options.get("sliding_window"):
            self.windows.add(int(window))
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])

    def _in_parts(self, *parts: list[int]) -> Tensor:
        """Logits after a request that is computed in parts, each in one row with another request."""
        pool, seen = self.pool(16), NONE
        for part in parts:
            other, new = pool.take(3), pool.take(len(part))
            positions = [0, 1, 2, *range(len(seen), len(seen) + len(part))]
            seen = np.concatenate([seen, new])
            rows = Prefill(slice(0, 3), places(other, self.device)), Prefill(slice(3, None), places(seen, self.device))
            slots = torch.from_numpy(np.concatenate([other, new])).to(self.device)
            logits = self.forward([1, 1, 1, *part], positions, Step(pool, slots, [], list(rows)), [2 + len(part)])
        return logits

    def _refusal(self, why: str) -> ModelError:
        kind = type(self.net).__name__
        return ModelError(
            f"engine 'torch' cannot run {self.name!r}: {kind} {why}; take one with rotary attention in every layer, "
            "such as Llama, Mistral, Qwen or Gemma"
        )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
