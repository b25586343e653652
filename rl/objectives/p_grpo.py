"""P-GRPO of ThreadWeaver (2512.07843).

One scalar for all threads of a trace, and no standard deviation: where all rollouts of a group are right, only the term
for parallelism differs, and dividing by its deviation would blow it up to the size of correctness.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rl.objectives.terms import Clipped, group_mean, per_token


@dataclass(frozen=True)
class PGrpo(Clipped):
    """``A = r - mean`` in a group; clipped ratio; mean over the tokens of the update, all threads alike.

    Attributes:
        clip_low, clip_high: as in `Grpo`; the defaults are the released settings.
    """

    name: ClassVar[str] = "p_grpo"
    clip_high: float = 0.28

    def advantages(self, rewards: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.advantages`."""
        return (rewards - group_mean(rewards, kept)) * kept

    def weights(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.weights`."""
        return per_token(tokens, kept)
