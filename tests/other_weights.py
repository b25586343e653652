"""A model and another one of the same shapes, to update weights from and to."""

import copy
import json
import shutil

import torch
from safetensors.torch import save_file


def other_weights(folder, plain, target):
    """Write a model to ``target`` that differs from the one in ``folder``; returns it under transformers."""
    other = copy.deepcopy(plain)
    with torch.no_grad():
        for weights in other.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    shutil.copytree(folder, target, dirs_exist_ok=True)
    other.save_pretrained(target)
    return other


def lora_adapter(plain, target, rank=4, alpha=12):
    """Write a LoRA adapter for a model, as peft lays it out; returns the model with it merged, under transformers."""
    merged, tensors = copy.deepcopy(plain), {}
    random = torch.Generator().manual_seed(2)
    for name, weights in merged.named_parameters():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            up = torch.randn(weights.shape[0], rank, generator=random) * 0.2
            down = torch.randn(rank, weights.shape[1], generator=random) * 0.2
            module = "base_model.model." + name.removesuffix(".weight")
            tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
            weights.data += alpha / rank * up @ down
    save_file(tensors, target / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (target / "adapter_config.json").write_text(json.dumps(config))
    return merged
