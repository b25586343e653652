"""Errors that a caller can act on: each names the value that was wrong and what to do."""

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


def first_line(error: BaseException) -> str:
    """What an error says, in one line; of several that pydantic found, the first."""
    said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return (said.strip() or type(error).__name__).splitlines()[0]
