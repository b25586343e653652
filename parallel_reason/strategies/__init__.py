"""Published methods that decide when to start, stop, prune and believe parallel paths, each a program in one file."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from parallel_reason.errors import InputError
from parallel_reason.strategies.adaptive_consistency import AdaptiveConsistency
from parallel_reason.strategies.branches import NO_ANSWER, Branches, Strategy
from parallel_reason.strategies.budget import Budget
from parallel_reason.strategies.early_stopping import EarlyStopping
from parallel_reason.strategies.first_consensus import FirstConsensus
from parallel_reason.strategies.parallel_probe import ParallelProbe
from parallel_reason.strategies.self_consistency import SelfConsistency
from parallel_reason.strategies.shortest import ShortMK
from parallel_reason.strategies.single import Single
from parallel_reason.strategies.stable_answers import StableAnswers

__all__ = ["NO_ANSWER", "STRATEGIES", "Branches", "Budget", "Strategy", "find", "replayable"]

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "single": Single,
    "sc": SelfConsistency,
    "short_mk": ShortMK,
    "asc": AdaptiveConsistency,
    "esc": EarlyStopping,
    "sac": StableAnswers,
    "parallel_probe": ParallelProbe,
    "first_consensus": FirstConsensus,
}


def find(text: str) -> Strategy:
    """A strategy by its name, and parameters other than its defaults: ``sc``, ``sc:n=16``, ``short_mk:m=1,k=16``.

    Raises:
        InputError: there is no such strategy or parameter, or its value cannot be used.
    """
    name, _, settings = text.partition(":")
    if name not in STRATEGIES:
        raise InputError(f"there is no strategy {name!r}; there is {', '.join(STRATEGIES)}")
    made = STRATEGIES[name]
    defaults = {field.name: field.default for field in fields(made) if field.name != "name"}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for setting in settings.split(",") if settings else ():
        key, _, value = setting.partition("=")
        if key not in defaults:
            raise InputError(f"strategy {name!r} has no parameter {key!r}; it has {', '.join(defaults) or 'none'}")
        kind = type(defaults[key])
        try:
            given[key] = {"true": True, "false": False}[value] if kind is bool else kind(value)
        except (KeyError, ValueError):
            raise InputError(f"{text!r}: {key}={value!r} must be {kind.__name__}, such as {defaults[key]!r}") from None
    return made(**given, name=text)


def replayable() -> list[str]:
    """The names of all that only start, sample, probe, stop and vote, and so run on recorded branches as well."""
    return list(STRATEGIES)
