"""Dr. GRPO (2503.20783): advantages without a standard deviation, and a constant normaliser."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rl.objectives.terms import Clipped, group_mean


@dataclass(frozen=True)
class DrGrpo(Clipped):
    """``A = r - mean`` in a group; clipped ratio; the sum over tokens divided by ``rollouts * longest``.

    Attributes:
        clip_low, clip_high: as in `Grpo`.
        longest: tokens of a rollout that the constant stands for.
    """

    name: ClassVar[str] = "dr_grpo"
    longest: int = 1024

    def advantages(self, rewards: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.advantages`."""
        return (rewards - group_mean(rewards, kept)) * kept

    def weights(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.weights`."""
        return kept / (kept.sum().clamp(min=1) * self.longest)
