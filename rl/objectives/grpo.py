"""GRPO with the token mean: DeepSeekMath (2402.03300) as DAPO (2503.14476) normalises it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rl.objectives.terms import Clipped, group_mean, group_std, per_token


@dataclass(frozen=True)
class Grpo(Clipped):
    """``A = (r - mean) / (std + 1e-4)`` in a group, as TRL has it; clipped ratio; mean over the tokens of the update.

    Attributes:
        clip_low, clip_high: the ratio counts from ``1 - clip_low`` to ``1 + clip_high``.
    """

    name: ClassVar[str] = "grpo"

    def advantages(self, rewards: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.advantages`."""
        centred = rewards - group_mean(rewards, kept)
        return centred / (group_std(rewards, kept, unbiased=True) + 1e-4) * kept

    def weights(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.weights`."""
        return per_token(tokens, kept)
