"""Errors that a caller can act on: each names the value that was wrong and what to do."""


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
