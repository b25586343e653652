"""The model of a run of supervised fine-tuning: loaded, or random; with adapters, and without."""

import copy
from typing import Any

from parallel_reason import InputError
from parallel_reason.prepared import PreparedFor
from parallel_reason.tasks.countdown import tokenizer as countdown_tokenizer
from rl.sft_config import Lora, RandomModel, SftConfig


def load_model(config: SftConfig) -> tuple[Any, Any]:
    """The model and its tokenizer.

    Raises:
        InputError: there is no model in the folder.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if isinstance(config.model, RandomModel):
        tokenizer = countdown_tokenizer()
        return random_model(config.model, tokenizer, config.seed), tokenizer
    try:
        model = AutoModelForCausalLM.from_pretrained(config.model, dtype=getattr(torch, config.optimization.dtype))
        return model, AutoTokenizer.from_pretrained(config.model)
    except (OSError, ValueError) as error:
        raise InputError(f"model {config.model!r}: {str(error).splitlines()[0]}") from None


def random_model(shape: RandomModel, tokenizer: Any, seed: int) -> Any:
    """A Qwen3 decoder with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=shape.width,
            intermediate_size=3 * shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.width // 32,
            num_key_value_heads=shape.width // 64,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def lora_config(lora: Lora, prepared: PreparedFor | None, *, tied: bool) -> Any:
    """Peft's configuration; the rows of control tokens that `prepare` added are trained whole.

    Args:
        tied: whether the output layer has the weights of the embeddings.
    """
    from peft import LoraConfig

    added = [token.id for token in prepared.added] if prepared and lora.train_added_tokens else []
    rows = {"embed_tokens": added} if tied else {"embed_tokens": added, "lm_head": added}
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
        trainable_token_indices=rows if added else None,
    )


def merged(model: Any, lora: bool) -> Any:
    """A model without adapters: a copy with them merged, or the model itself if it has none."""
    return copy.deepcopy(model).merge_and_unload() if lora else model
