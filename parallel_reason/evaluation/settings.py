"""`RunSettings`: all that decides what the samples of a run are; a run goes on only under the same."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from parallel_reason.evaluation.work import ModelShape
from parallel_reason.limits import Limits
from parallel_reason.record import FrozenRecord
from parallel_reason.runtime.chat import ChatOptions
from parallel_reason.sampling import SamplingParams
from parallel_reason.strategies import Budget
from parallel_reason.tasks import TaskProblem

MAY_DIFFER = {"versions", "shape"}  # from one attempt of a run to the next


class RunSettings(FrozenRecord):
    """What ``settings.json`` of a run's folder says.

    Attributes:
        task: as `parallel_reason.tasks.find` takes it.
        problems: how many; ``first_problem`` is the number of the first in the test set, from 0.
        content: digest of the problems themselves and of the prompt's text, so that an edited file is another run.
        strategy: name and parameters of the program that ran, or None; ``budget`` is what each trace might spend.
        shape: of the model, for figures of cost.
        versions: of packages, when the run began.
    """

    version: Literal[1] = 1
    task: str
    first_problem: int = 0
    problems: int = Field(ge=1)
    model: str
    engine: str
    engine_options: dict[str, Any] = Field(default_factory=dict)
    dialect: str
    dialect_options: dict[str, Any] = Field(default_factory=dict)
    strategy: str | None = None
    budget: Budget | None = None
    prompt: str | None = None
    chat: ChatOptions | None = None
    sampling: SamplingParams
    limits: Limits
    content: str
    shape: ModelShape | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def expected(self) -> int:
        """How many samples a whole run has."""
        return self.problems * self.sampling.n


def digest(problems: Sequence[TaskProblem], prompt: str) -> str:
    """Of problems, their references, and the text of a prompt."""
    digest = hashlib.sha256(prompt.encode())
    for problem in problems:
        digest.update(repr((problem.key, problem.text, problem.reference)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16]


def first_difference(kept: Mapping[str, Any], given: Mapping[str, Any], above: str = "") -> str | None:
    """Which setting differs, with both values, such as ``sampling.seed was 0, is 1``; None if none does."""
    for name in dict.fromkeys([*kept, *given]):
        one, other = kept.get(name), given.get(name)
        if one == other or (not above and name in MAY_DIFFER):
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return first_difference(one, other, f"{above}{name}.")
        return f"{above}{name} was {one!r:.60}, is {other!r:.60}"
    return None
