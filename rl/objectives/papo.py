"""PAPO of Native Parallel Reasoner (2512.07461): strictly on-policy, so control tokens always get a gradient."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rl.objectives.terms import group_mean, per_token


@dataclass(frozen=True)
class Papo:
    """``A = (r - mean of the group) / std of the whole update``; no ratio, no clip; mean over the tokens of the update.

    Malformed rollouts are left out. (The released code divides by a deviation that it changes while it does so; here it
    is that of the rewards, as in the paper.)
    """

    name: ClassVar[str] = "papo"
    drops_malformed: ClassVar[bool] = True

    def advantages(self, rewards: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.advantages`; all 0 if all rewards of the update are equal."""
        centred = (rewards - group_mean(rewards, kept)) * kept
        counted = rewards[kept]
        std = counted.std() if len(counted) > 1 else counted.new_zeros(())
        return centred / std if std > 0 else centred * 0

    def weights(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.weights`."""
        return per_token(tokens, kept)

    def token_loss(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """See `Objective.token_loss`; the ratio is of the policy to itself."""
        return -(logprobs - logprobs.detach()).exp() * advantages
