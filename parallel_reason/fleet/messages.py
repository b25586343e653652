"""What goes between a session and the actors of its fleet."""

from dataclasses import dataclass, field
from typing import Any

from parallel_reason.engines.base import Capabilities
from parallel_reason.limits import Limits
from parallel_reason.runtime.prompts import RenderedPrompt
from parallel_reason.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What every actor gives to `Session.start`: the model, and ``options`` by name."""

    model: str | None
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights in a folder that all actors can read; ``version`` is the policy version of what they sample."""

    folder: str
    version: int


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One trace to run.

    Attributes:
        id: of the trace, the same in every attempt.
        dialect, dialect_options: the grammar, a class.
        identity: further fields of `Trace`: task, prompt_index, group.
    """

    id: str
    prompt: RenderedPrompt
    sampling: SamplingParams
    limits: Limits
    dialect: type[Any]
    dialect_options: dict[str, Any]
    sample: int = 0
    identity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an actor says of the engine that it started; fields as of `Engine`, and the dialect that was chosen."""

    name: str
    model: str
    tokenizer: Any
    context: int
    vocabulary: int
    eos_ids: frozenset[int]
    precision: str
    capabilities: Capabilities
    blocks: int | None
    block_size: int
    dialect: type[Any]
    dialect_options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Integrity:
    """An engine that is idle: whether all KV is free, and the memory of its processes in bytes."""

    kv_is_free: bool
    memory: int
