"""Parallel reasoning: a model forks threads over one shared prefix and joins them, on vLLM."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallel_reason.dialects.spawn_join import SpawnJoin as SpawnJoin
    from parallel_reason.errors import ParallelReasonError as ParallelReasonError
    from parallel_reason.ledger import Ledger as Ledger
    from parallel_reason.limits import Limits as Limits
    from parallel_reason.llm import ParallelLLM as ParallelLLM
    from parallel_reason.llm import generate as generate
    from parallel_reason.sampling import SamplingParams as SamplingParams
    from parallel_reason.trace import Trace as Trace
    from parallel_reason.trace import read_traces as read_traces

__version__ = "0.1.0"

# Looked up on first use, so that `import parallel_reason` costs milliseconds and an engine is imported only to be run.
_HOMES = {
    "ParallelLLM": "llm",
    "generate": "llm",
    "Trace": "trace",
    "read_traces": "trace",
    "Ledger": "ledger",
    "Limits": "limits",
    "SamplingParams": "sampling",
    "SpawnJoin": "dialects.spawn_join",
    "ParallelReasonError": "errors",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'parallel_reason' has no attribute {name!r}")
    return getattr(import_module(f"parallel_reason.{_HOMES[name]}"), name)
