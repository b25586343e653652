"""Errors that a caller can act on: each names the value that was wrong and what to do."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError


class ParallelReasonError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(ParallelReasonError):
    """A prompt, name or number from the caller that cannot be used."""


class TraceFileError(InputError):
    """A trace, or a line of a trace file, that cannot be read."""


class ModelError(ParallelReasonError):
    """A model or tokenizer that cannot be loaded, or that the dialect cannot run."""


class EngineError(ParallelReasonError):
    """An engine that cannot start, or that died; names the engine."""


class CallbackError(ParallelReasonError):
    """An `on_trace` that raised; all traces were run to their end. ``__cause__`` is the first error.

    Attributes:
        traces: all traces of the call, in the order in which `Session.run` returns them.
        not_taken: for how many of them the callback raised.
    """

    def __init__(self, traces: Sequence[Any], errors: Sequence[BaseException]) -> None:
        """``errors`` are what the callback raised, in order; at least one."""
        self.traces = list(traces)
        self.not_taken = len(errors)
        self.__cause__ = errors[0]
        super().__init__(f"{len(errors)} of {len(traces)} traces were not taken by on_trace: {first_line(errors[0])}")


def first_line(error: BaseException) -> str:
    """The message of an error, in one line; of several that pydantic found, the first."""
    message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return (message.strip() or type(error).__name__).splitlines()[0]
