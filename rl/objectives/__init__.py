"""Policy-gradient objectives over traces, one published method a file: pure, inputs to outputs."""

from rl.objectives.apr import Apr
from rl.objectives.base import Objective
from rl.objectives.dr_grpo import DrGrpo
from rl.objectives.grpo import Grpo
from rl.objectives.gspo import Gspo
from rl.objectives.p_grpo import PGrpo
from rl.objectives.papo import Papo

__all__ = ["OBJECTIVES", "Objective"]

OBJECTIVES: dict[str, type[Objective]] = {kind.name: kind for kind in (Grpo, DrGrpo, PGrpo, Papo, Apr, Gspo)}
