"""What an objective is: advantages of rollouts, weights of their tokens, and the loss of a token.

The loss of an update is the sum over all sampled tokens of ``weight * token_loss``. Weights are known before the first
forward pass, since they depend on counts alone; so an update may be cut into micro-batches of any size and its gradient
stays the same. Statistics are over rollouts, whole traces, never over threads or rows: a success with three threads
against a failure with one has the baseline 0.5.
"""

from typing import ClassVar, Protocol

from torch import Tensor


class Objective(Protocol):
    """A policy-gradient objective over groups of rollouts of one problem.

    Attributes:
        name: under which a configuration chooses it.
        drops_malformed: whether rollouts with a fork that could not be read are left out: no reward, no punishment.
    """

    name: ClassVar[str]
    drops_malformed: ClassVar[bool]

    def advantages(self, rewards: Tensor, kept: Tensor) -> Tensor:
        """The advantage of every rollout, [groups, rollouts]; 0 for those left out.

        Args:
            rewards: [groups, rollouts].
            kept: which rollouts count, [groups, rollouts], boolean.
        """
        ...

    def weights(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """The weight of each sampled token of a rollout, [groups, rollouts]; 0 for rollouts left out.

        Args:
            tokens: sampled tokens of each rollout over all its threads, [groups, rollouts].
            kept: as above.
        """
        ...

    def token_loss(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """The loss of every token before its weight, [rows, tokens]. A row is one rollout, with all its threads.

        Args:
            logprobs: of the sampled tokens under the policy that is trained, [rows, tokens].
            old_logprobs: under the policy that sampled them, [rows, tokens].
            advantages: of the row, [rows, 1].
            mask: which places hold a sampled token, [rows, tokens], boolean.
        """
        ...
