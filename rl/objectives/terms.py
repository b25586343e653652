"""Terms that several objectives are made of."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clipped:
    """PPO's pessimistic surrogate of each token's ratio (1707.06347), with an upper clip of its own (DAPO, 2503.14476).

    Attributes:
        clip_low, clip_high: the ratio counts from ``1 - clip_low`` to ``1 + clip_high``.
    """

    drops_malformed: ClassVar[bool] = False
    clip_low: float = 0.2
    clip_high: float = 0.2

    def token_loss(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """See `Objective.token_loss`."""
        return self.surrogate(logprobs - old_logprobs, advantages)

    def surrogate(self, log_ratio: Tensor, advantages: Tensor) -> Tensor:
        """The loss of a ratio, given as its logarithm."""
        ratio = log_ratio.exp()
        return -torch.min(ratio * advantages, ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * advantages)


def group_mean(rewards: Tensor, kept: Tensor) -> Tensor:
    """The mean reward of the rollouts of a group that count, [groups, 1]; 0 where none does."""
    return (rewards * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


def group_std(rewards: Tensor, kept: Tensor, *, unbiased: bool) -> Tensor:
    """The standard deviation of the rewards of a group that count, [groups, 1]; 0 where fewer than two do."""
    squares = ((rewards - group_mean(rewards, kept)).square() * kept).sum(1, keepdim=True)
    return (squares / (kept.sum(1, keepdim=True) - int(unbiased)).clamp(min=1)).sqrt()


def per_token(tokens: Tensor, kept: Tensor) -> Tensor:
    """Every sampled token of the update weighs the same, [groups, rollouts]: the token mean."""
    return kept / (tokens * kept).sum().clamp(min=1)


def per_rollout(tokens: Tensor, kept: Tensor) -> Tensor:
    """Every rollout of the update weighs the same, and so does each of its tokens, [groups, rollouts]."""
    return kept / (tokens.clamp(min=1) * kept.sum().clamp(min=1))


def kl_to_reference(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """An estimate of the divergence from the policy to a reference, token by token; never negative (Schulman's k3)."""
    difference = reference_logprobs - logprobs
    return difference.exp() - difference - 1
