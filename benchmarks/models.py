"""Models with random weights, in the sizes that the benchmarks use, and random token ids for them."""

import random
import tempfile

VOCABULARY = 4096
SIZES = {"3M": (5, 192), "80M": (11, 768)}  # layers and hidden size, by parameters
SMALL = "3M"
FIRST_ID = 400  # random ids start here; those below are for tags and headers


def random_model(layers: int, width: int, window: int = 16384) -> str:
    """A new folder with a random Qwen3 that never samples its end of text.

    Args:
        width: its hidden size, a multiple of 64.
        window: the longest context.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from parallel_reason.tasks.countdown.vocabulary import tokenizer

    disable_progress_bar()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=max(1, width // 128), head_dim=64,
        max_position_embeddings=window, tie_word_embeddings=True, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    folder = tempfile.mkdtemp()
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def random_ids(count: int, seed: int) -> list[int]:
    """Token ids, [count]; the same for the same seed."""
    return random.Random(seed).choices(range(FIRST_ID, VOCABULARY), k=count)
