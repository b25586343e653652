"""A model and another one of the same shapes, to update weights from and to."""

import copy
import shutil

import torch


def other_weights(folder, plain, target):
    """Write a model to ``target`` that differs from the one in ``folder``; returns it under transformers."""
    other = copy.deepcopy(plain)
    with torch.no_grad():
        for weights in other.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    shutil.copytree(folder, target, dirs_exist_ok=True)
    other.save_pretrained(target)
    return other
