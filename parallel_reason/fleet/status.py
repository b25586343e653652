"""What a person sees of each engine of a fleet."""

from typing import Literal

from parallel_reason.record import FrozenRecord


class EngineStatus(FrozenRecord):
    """One engine, now and since the fleet was started.

    Attributes:
        name: of its actor, as Ray's dashboard has it.
        traces: that it has now.
        finished: traces that came back from it; ``sampled_tokens`` of these.
        restarts: how often it died.
    """

    name: str
    state: Literal["serves", "starts", "given up"]
    traces: int
    finished: int
    sampled_tokens: int
    restarts: int
