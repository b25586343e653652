"""Parallel reasoning: a model forks threads over one shared prefix and joins them, on vLLM."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallel_reason.dialects.spawn_join import SpawnJoin as SpawnJoin
    from parallel_reason.errors import CallbackError as CallbackError
    from parallel_reason.errors import EngineError as EngineError
    from parallel_reason.errors import InputError as InputError
    from parallel_reason.errors import ModelError as ModelError
    from parallel_reason.errors import ParallelReasonError as ParallelReasonError
    from parallel_reason.fleet import Fleet as Fleet
    from parallel_reason.limits import Limits as Limits
    from parallel_reason.llm import ParallelLLM as ParallelLLM
    from parallel_reason.llm import generate as generate
    from parallel_reason.runtime.chat import ChatOptions as ChatOptions
    from parallel_reason.runtime.program import Program as Program
    from parallel_reason.runtime.program import ProgramThread as ProgramThread
    from parallel_reason.runtime.program import ProgramThreads as ProgramThreads
    from parallel_reason.runtime.program import Token as Token
    from parallel_reason.runtime.replay import parse as parse
    from parallel_reason.runtime.session import Session as Session
    from parallel_reason.sampling import SamplingParams as SamplingParams
    from parallel_reason.sampling import StructuredOutputsParams as StructuredOutputsParams
    from parallel_reason.trace import Aggregate as Aggregate
    from parallel_reason.trace import Fork as Fork
    from parallel_reason.trace import Ledger as Ledger
    from parallel_reason.trace import Span as Span
    from parallel_reason.trace import Thread as Thread
    from parallel_reason.trace import Trace as Trace
    from parallel_reason.trace import TraceWriter as TraceWriter
    from parallel_reason.trace import aggregate as aggregate
    from parallel_reason.trace import flatten as flatten
    from parallel_reason.trace import layout as layout
    from parallel_reason.trace import read_traces as read_traces
    from parallel_reason.trace import resume as resume
    from parallel_reason.viewer.notebook import trace_html as trace_html

__version__ = "0.2.0"

# Looked up on first use, so that `import parallel_reason` costs milliseconds and an engine is imported only to be run.
_HOMES = {
    "llm": ["ParallelLLM", "generate"],
    "runtime.chat": ["ChatOptions"],
    "runtime.program": ["Program", "ProgramThread", "ProgramThreads", "Token"],
    "runtime.session": ["Session"],
    "runtime.replay": ["parse"],
    "trace": [
        "Trace", "Thread", "Span", "Fork", "Ledger", "Aggregate", "aggregate", "flatten", "layout", "read_traces",
        "resume", "TraceWriter",
    ],
    "viewer.notebook": ["trace_html"],
    "limits": ["Limits"],
    "fleet": ["Fleet"],
    "sampling": ["SamplingParams", "StructuredOutputsParams"],
    "dialects.spawn_join": ["SpawnJoin"],
    "errors": ["ParallelReasonError", "InputError", "ModelError", "EngineError", "CallbackError"],
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [*_HOME_OF, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'parallel_reason' has no attribute {name!r}")
    return getattr(import_module(f"parallel_reason.{_HOME_OF[name]}"), name)
