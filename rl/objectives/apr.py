"""The objective of APR (2504.15466): one advantage a rollout, stamped on each of its threads.

The released code takes the mean of each sequence and divides by the number of sequences in its rollout, so a rollout
counts once, but a token of a short thread counts more, and splitting a thread changes the weights of all others. Here a
rollout counts once and all its tokens alike.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rl.objectives.terms import Clipped, group_mean, group_std, per_rollout


@dataclass(frozen=True)
class Apr(Clipped):
    """``A = (r - mean) / (std + 1e-10)`` in a group; clipped ratio; mean over rollouts of their token means."""

    name: ClassVar[str] = "apr"

    def advantages(self, rewards: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.advantages`."""
        centred = (rewards - group_mean(rewards, kept)) * kept
        return centred / (group_std(rewards, kept, unbiased=False) + 1e-10)

    def weights(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.weights`."""
        return per_rollout(tokens, kept)
