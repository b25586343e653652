"""Published methods that decide when to start, stop, prune and believe parallel paths, each a program in one file."""

from dataclasses import fields, replace
from typing import Any

from pydantic import ValidationError

from parallel_reason.errors import InputError
from parallel_reason.strategies.adaptive_consistency import AdaptiveConsistency
from parallel_reason.strategies.best_of_n import BestOfN, SelfCertainty
from parallel_reason.strategies.branches import NO_ANSWER, Branches, Strategy
from parallel_reason.strategies.budget import Budget
from parallel_reason.strategies.conformal import ConformalRejection
from parallel_reason.strategies.deep_prune import DeepPrune
from parallel_reason.strategies.deepconf import DeepConfOffline, DeepConfOnline
from parallel_reason.strategies.draft_and_target import DraftAndTarget
from parallel_reason.strategies.early_stopping import EarlyStopping
from parallel_reason.strategies.first_consensus import FirstConsensus
from parallel_reason.strategies.leap import LearningFromPeers
from parallel_reason.strategies.live import LiveBranches
from parallel_reason.strategies.no_thinking import NoThinking
from parallel_reason.strategies.pairwise import Pairwise
from parallel_reason.strategies.parallel_probe import ParallelProbe
from parallel_reason.strategies.parallel_traces import over_traces
from parallel_reason.strategies.program import program
from parallel_reason.strategies.prune_and_fork import PruneAndFork
from parallel_reason.strategies.rounds import Rounds
from parallel_reason.strategies.self_consistency import SelfConsistency
from parallel_reason.strategies.shortest import ShortMK
from parallel_reason.strategies.single import Single
from parallel_reason.strategies.stable_answers import StableAnswers

__all__ = [
    "NO_ANSWER", "REPLAYABLE", "STRATEGIES", "BestOfN", "Branches", "Budget", "DraftAndTarget", "LiveBranches",
    "Strategy", "find", "over_traces", "program",
]  # fmt: skip

REPLAYABLE: dict[str, Strategy] = {
    "single": Single(),
    "sc": SelfConsistency(),
    "shortest": ShortMK(m=1),
    "short_mk": ShortMK(),
    "asc": AdaptiveConsistency(),
    "esc": EarlyStopping(),
    "sac": StableAnswers(),
    "parallel_probe": ParallelProbe(),
    "deep_prune": DeepPrune(),
    "first_consensus": FirstConsensus(),
}
NEED_A_MODEL: dict[str, Strategy] = {
    "no_thinking": NoThinking(),
    "self_certainty": SelfCertainty(),
    "deepconf_offline": DeepConfOffline(),
    "deepconf_online": DeepConfOnline(),
    "prune_and_fork": PruneAndFork(),
    "conformal": ConformalRejection(),
    "leap": LearningFromPeers(),
    "pairwise": Pairwise(),
    "pdr": Rounds(breadths=(8, 1), workspace="summary"),
    "sequential_refinement": Rounds(breadths=(1, 1, 1, 1)),
    "pacore": Rounds(breadths=(16, 1), prompt="pacore"),
    "rsa": Rounds(breadths=(16,) * 10, prompt="rsa", workspace="random"),
    "seat": Rounds(breadths=(8,) * 6, observe=2),
}
STRATEGIES = REPLAYABLE | NEED_A_MODEL


def find(text: str) -> Strategy:
    """A strategy by its name, and parameters other than its defaults: ``sc``, ``sc:n=16``, ``pacore:breadths=32+4+1``.

    Raises:
        InputError: there is no such strategy or parameter, or its value cannot be used.
    """
    name, _, settings = text.partition(":")
    if name not in STRATEGIES:
        raise InputError(f"there is no strategy {name!r}; there is {', '.join(STRATEGIES)}")
    strategy: Any = STRATEGIES[name]
    defaults = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    names = [key for key, value in defaults.items() if key != "name" and isinstance(value, int | float | str | tuple)]
    given: dict[str, Any] = {}
    for setting in settings.split(",") if settings else ():
        key, _, value = setting.partition("=")
        if key not in names:
            raise InputError(f"strategy {name!r} has no parameter {key!r}; it has {', '.join(names) or 'none'}")
        given[key] = tuple(value.split("+")) if isinstance(defaults[key], tuple) else value
    try:
        found: Strategy = replace(strategy, **given, name=text)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{text!r}: {first['loc'][0]}={first['input']!r:.60}: {first['msg']}") from None
    return found
