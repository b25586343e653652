"""Random models of seven families whose tokens are letters or bytes, for requests that no dialect makes."""

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

WORDS = ["<eos>", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"]
FAMILIES = {
    "Qwen3": {"head_dim": 16},
    "Qwen2": {},
    "Llama": {},
    "Mistral": {"sliding_window": 80},
    "Gemma": {"head_dim": 24},
    "Gemma2": {"head_dim": 16, "sliding_window": 72, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0},
    "Gemma3": {"head_dim": 16, "sliding_window": 72, "sliding_window_pattern": 2},
}


def build(family, folder, **options):
    """A random model of a family, and a tokenizer with a token a letter, in a folder."""
    config = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")(
        **{
            "vocab_size": len(WORDS), "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "initializer_range": 0.2, "tie_word_embeddings": False, "eos_token_id": 0,
            "bos_token_id": None, "pad_token_id": 0,
        } | FAMILIES[family] | options,
    )  # fmt: skip
    torch.manual_seed(11)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_tokenizer(folder, eos_token="<eos>")
    return str(folder)


def build_endless(family, folder, **options):
    """One that never ends by itself: its end is a token outside of the vocabulary."""
    build(family, folder, eos_token_id=len(WORDS) + 1, **options)
    write_tokenizer(folder)
    return str(folder)


def letter_tokenizer(**options):
    """A token a letter, in the order of `WORDS`."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **options)


def write_tokenizer(folder, **options):
    letter_tokenizer(**options).save_pretrained(folder)


def byte_tokenizer():
    """256 tokens, one a byte, with its value as id: a character outside of ASCII is split over several."""
    core = Tokenizer(models.BPE({character: byte for byte, character in bytes_to_unicode().items()}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core)


def words(seed, count):
    return np.random.default_rng(seed).integers(1, len(WORDS), count).tolist()
