"""Models with random weights, in the sizes that the benchmarks use, and random token ids for them."""

import random
import tempfile
from dataclasses import dataclass
from typing import Any

VOCABULARY = 4096
FIRST_ID = 400  # random ids start here; those below are for tags and headers


@dataclass(frozen=True)
class Size:
    """The shape of a model.

    Attributes:
        kv_heads: the number of key and value heads; a head is ``head`` wide.
        inner: the width of its MLP.
        kv_gib: GiB of KV that the benchmarks need, at 4 bytes a number for the small ones, 2 for the large.
        written: whether its weights are made and saved; else vLLM makes them up when it loads the model.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    kv_gib: int = 2
    written: bool = True


SMALL = "3M"
SIZES = {
    SMALL: Size(5, 192, 3, 1, 64, 576),
    "80M": Size(11, 768, 12, 6, 64, 2304),
    "8B": Size(36, 4096, 32, 8, 128, 12288, kv_gib=12, written=False),  # Qwen3-8B but for its vocabulary
}


@dataclass(frozen=True)
class RandomModel:
    """A random Qwen3 that never samples its end of text.

    Attributes:
        name: its size, by parameters.
        options: with which vLLM is to be started.
    """

    name: str
    folder: str
    options: dict[str, Any]


def random_model(size: Size, window: int = 16384) -> str:
    """A new folder with a model of some size.

    Args:
        window: the longest context.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from parallel_reason.tasks.countdown.vocabulary import tokenizer

    disable_progress_bar()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=size.width, intermediate_size=size.inner, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, num_key_value_heads=size.kv_heads, head_dim=size.head,
        max_position_embeddings=window, tie_word_embeddings=True, eos_token_id=1, pad_token_id=0, bos_token_id=None,
        architectures=["Qwen3ForCausalLM"],
    )  # fmt: skip
    folder = tempfile.mkdtemp()
    if size.written:
        Qwen3ForCausalLM(config).save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def model_of(name: str, dtype: str, window: int) -> RandomModel:
    """A new model of one of `SIZES`, to be run in ``dtype``."""
    size = SIZES[name]
    options = {"dtype": dtype, "kv_cache_gib": size.kv_gib, **({} if size.written else {"load_format": "dummy"})}
    return RandomModel(name, random_model(size, window), options)


def random_ids(count: int, seed: int) -> list[int]:
    """Token ids, [count]; the same for the same seed."""
    return random.Random(seed).choices(range(FIRST_ID, VOCABULARY), k=count)
