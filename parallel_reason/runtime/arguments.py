"""What a caller may give to a session beside prompts, checked; and the names of it, for faces that pass it on."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypedDict

from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

AnySampling = SamplingParams | dict[str, Any]
AnyLimits = Limits | dict[str, Any]
OnTrace = Callable[[Trace], None]


class StreamOptions(TypedDict, total=False):
    """What `Session.stream` takes by name."""

    task: str | None


class RunOptions(TypedDict, total=False):
    """What `Session.run` takes by name."""

    tasks: Sequence[str] | None
    skip: Collection[tuple[str, int]]
    on_trace: OnTrace | None


def sampling_of(given: AnySampling | None) -> SamplingParams:
    """The parameters that a caller gave; greedy if None.

    Raises:
        InputError: something else, such as vLLM's own ``SamplingParams``, which has other defaults.
    """
    return SamplingParams() if given is None else SamplingParams.given("sampling", given)


def limits_of(given: AnyLimits | None, default: Limits) -> Limits:
    """The bounds that a caller gave; ``default`` if None.

    Raises:
        InputError: something else.
    """
    return default if given is None else Limits.given("limits", given)


def check_traces_at_once(given: int) -> None:
    """Raise InputError if it is no count of at least one."""
    if not isinstance(given, int) or given < 1:
        raise InputError(f"traces_at_once must be an integer of at least 1, not {given!r:.60}")
