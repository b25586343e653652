"""A reward that a user writes: a Python function, run in a process that is killed when it hangs."""

import importlib
import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field, field_validator

from parallel_reason import InputError, Trace
from parallel_reason.record import FrozenRecord
from parallel_reason.tasks.grading import apart, check_installed


class Function(FrozenRecord):
    """``weight`` times what a function says of a rollout.

    Attributes:
        function: ``module:name``, found as Python finds it from where the command runs; it takes the trace and whether
            its answer is correct, and returns a number.
        seconds: that it may take; the first call of a process imports its module as well.
    """

    kind: Literal["function"] = "function"
    function: str
    weight: float = 1.0
    seconds: float = Field(10.0, gt=0)

    @field_validator("function")
    @classmethod
    def _is_there(cls, name: str) -> str:
        check_installed()
        try:
            _find(name)
        except Exception as error:  # whatever a user's module raises when it is imported
            raise ValueError(f"there is no function {name!r} ({error}); write module:name") from None
        return name

    def value(self, trace: Trace, correct: bool, update: int) -> float:
        """The part of one rollout.

        Raises:
            InputError: the function raised, took too long, or returned no finite number.
        """
        try:
            value = apart(_call, self.function, trace, correct, seconds=self.seconds)
        except TimeoutError:
            raise InputError(
                f"reward function {self.function} took longer than {self.seconds:g} s: {_where(trace)}"
            ) from None
        except Exception as error:  # whatever a user's function raises
            raise InputError(
                f"reward function {self.function} raised {type(error).__name__}: {error}: {_where(trace)}"
            ) from None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(
                f"reward function {self.function} returned {value!r:.40}, which is no reward: {_where(trace)}"
            )
        return self.weight * float(value)


def _call(name: str, trace: Trace, correct: bool) -> object:
    return _find(name)(trace, correct)


def _find(name: str) -> Callable[[Trace, bool], object]:
    module, _, function = name.partition(":")
    found: Callable[[Trace, bool], object] = getattr(importlib.import_module(module), function)
    return found


def _where(trace: Trace) -> str:
    return f"sample {trace.sample} of {trace.prompt!r:.60}"
