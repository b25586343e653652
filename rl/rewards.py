"""Rewards composed of named parts, each of which is logged apart. All but a user's own are pure functions of a rollout.

Token counts are the ledger's: T, all that the model sampled, and C, the critical path.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field

from parallel_reason import Trace
from parallel_reason.record import FrozenRecord
from rl.progress_bonus import Progress
from rl.reward_function import Function


class Correctness(FrozenRecord):
    """``right`` for a correct answer, ``wrong`` for any other."""

    kind: Literal["correctness"] = "correctness"
    right: float = 1.0
    wrong: float = 0.0

    def value(self, trace: Trace, correct: bool, update: int) -> float:
        """The part of one rollout."""
        return self.right if correct else self.wrong


class Format(FrozenRecord):
    """``malformed`` for a trace that did not finish or has a fork that could not be read, else ``well_formed``."""

    kind: Literal["format"] = "format"
    well_formed: float = 0.0
    malformed: float = -1.0

    def value(self, trace: Trace, correct: bool, update: int) -> float:
        """The part of one rollout."""
        good = trace.status == "finished" and not trace.ledger.malformed_forks
        return self.well_formed if good else self.malformed


class Parallelism(FrozenRecord):
    """``rho * min(1 - C / T, clip)`` for correct rollouts: the released reward of ThreadWeaver (2512.07843)."""

    kind: Literal["parallelism"] = "parallelism"
    rho: float = 0.5
    clip: float = Field(0.2, ge=0, le=1)

    def value(self, trace: Trace, correct: bool, update: int) -> float:
        """The part of one rollout."""
        sampled = trace.ledger.sampled_tokens
        if not correct or not sampled:
            return 0.0
        return self.rho * min(1 - trace.ledger.critical_path_tokens / sampled, self.clip)


class Alternating(FrozenRecord):
    """The schedule of Parallel-R1 (2509.07980): in most updates +1 or -1 for the answer alone.

    In the last ``period - accuracy_updates`` of every ``period`` updates a correct answer with a fork has ``forked``,
    one without a fork 1, and a wrong one, or one with a malformed fork, -1.
    """

    kind: Literal["alternating"] = "alternating"
    period: int = Field(10, ge=1)
    accuracy_updates: int = Field(8, ge=0)
    forked: float = 1.2

    def value(self, trace: Trace, correct: bool, update: int) -> float:
        """The part of one rollout; ``update`` counts from 0."""
        if update % self.period < self.accuracy_updates:
            return 1.0 if correct else -1.0
        if not correct or trace.ledger.malformed_forks:
            return -1.0
        return self.forked if trace.ledger.forks else 1.0


class TotalTokens(FrozenRecord):
    """``-cost`` for every thousand tokens of T, of correct rollouts or of ``all``."""

    kind: Literal["total_tokens"] = "total_tokens"
    cost: float = Field(ge=0)
    of: Literal["correct", "all"] = "correct"

    def value(self, trace: Trace, correct: bool, update: int) -> float:
        """The part of one rollout."""
        return -self.cost * trace.ledger.sampled_tokens / 1000 if correct or self.of == "all" else 0.0


class CriticalPath(FrozenRecord):
    """``-cost`` for every thousand tokens of C, of correct rollouts or of ``all``."""

    kind: Literal["critical_path"] = "critical_path"
    cost: float = Field(ge=0)
    of: Literal["correct", "all"] = "correct"

    def value(self, trace: Trace, correct: bool, update: int) -> float:
        """The part of one rollout."""
        return -self.cost * trace.ledger.critical_path_tokens / 1000 if correct or self.of == "all" else 0.0


Part = Annotated[
    Correctness | Format | Parallelism | Alternating | TotalTokens | CriticalPath | Function | Progress,
    Field(discriminator="kind"),
]


class Valued(Protocol):
    """A part that can be told of a rollout as it is; `Progress` must be measured first."""

    @property
    def kind(self) -> str:
        """What it is called."""
        ...

    def value(self, trace: Trace, correct: bool, update: int) -> float:
        """The part of one rollout; ``update`` of the policy counts from 0."""
        ...


def reward_parts(parts: Sequence[Valued], trace: Trace, correct: bool, update: int) -> dict[str, float]:
    """Every part of a rollout's reward, by kind; their sum is the reward.

    Args:
        correct: what the task's verifier says of the answer.
        update: of the policy, from 0.
    """
    return {part.kind: part.value(trace, correct, update) for part in parts}
