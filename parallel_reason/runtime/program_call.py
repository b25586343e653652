"""What one call of a program samples: the parameters of its thread, with those of the call in their place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parallel_reason.dialects.base import Stops
from parallel_reason.engines.base import Engine
from parallel_reason.engines.checks import check_thread
from parallel_reason.errors import InputError
from parallel_reason.sampling import SamplingParams

OF_THE_TRACE = ("n", "seed", "below", "threads")


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        max_tokens: of this call; None for as many as the thread may sample.
        thread: the parameters of the thread, whose ``max_tokens`` and stops bound all that it samples.
        sampling: these with the call's own.
        stops: of the call: the thread pauses there.
    """

    max_tokens: int | None
    thread: SamplingParams
    sampling: SamplingParams
    stops: Stops

    @classmethod
    def of(
        cls,
        thread: SamplingParams,
        engine: Engine,
        max_tokens: int | None,
        stop: str | Sequence[str],
        stop_token_ids: Sequence[int],
        fields: dict[str, Any],
    ) -> "Call":
        """A call with these arguments.

        Raises:
            InputError: a value that cannot be used, or a field of a whole trace.
        """
        wrong = next((name for name in fields if name in OF_THE_TRACE), None)
        if wrong is not None:
            raise InputError(f"{wrong}={fields[wrong]!r:.60} is of a whole trace: give it to run, not to one call")
        own = {"max_tokens": max_tokens, "stop": stop, "stop_token_ids": list(stop_token_ids)}
        checked = SamplingParams.from_caller("sampling", own)
        sampling = thread
        if fields:
            kept = {name: value for name, value in thread.given().items() if name not in OF_THE_TRACE}
            sampling = SamplingParams.from_caller("sampling", kept | fields)
        if fields or checked.stop_token_ids:
            check_thread(sampling, engine)
            check_thread(checked, engine)
        return cls(max_tokens, thread, sampling, Stops(frozenset(checked.stop_token_ids), checked.stop))
