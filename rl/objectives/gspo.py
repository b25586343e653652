"""GSPO (2507.18071) at the level of a trace: one ratio for all tokens of all its threads."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rl.objectives.terms import Clipped, group_mean, group_std, per_rollout


@dataclass(frozen=True)
class Gspo(Clipped):
    """As GRPO, but the ratio is the geometric mean over the tokens of a trace; mean over rollouts.

    Attributes:
        clip_low, clip_high: as in `Grpo`; far smaller, since a mean of many tokens moves little.
    """

    name: ClassVar[str] = "gspo"
    clip_low: float = 3e-4
    clip_high: float = 4e-4

    def advantages(self, rewards: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.advantages`."""
        centred = (rewards - group_mean(rewards, kept)) * kept
        return centred / (group_std(rewards, kept, unbiased=True) + 1e-4)

    def weights(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """See `Objective.weights`."""
        return per_rollout(tokens, kept)

    def token_loss(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """See `Objective.token_loss`."""
        log_ratio = ((logprobs - old_logprobs) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.surrogate(log_ratio, advantages).expand_as(logprobs)
