"""`Fleet`: how many engines, and what each of them gets of a Ray cluster."""

from typing import Literal

from pydantic import Field

from parallel_reason.record import FrozenRecord


class Fleet(FrozenRecord):
    """Engines on Ray, an actor each. What Ray calls ``resources`` are promises: Ray counts them, and pins nothing.

    Attributes:
        engines: how many.
        cpus_per_engine: of Ray's CPUs; fractions are allowed.
        gpus_per_engine: of Ray's GPUs; for ``tensor_parallel_size=2`` give 2.
        resources_per_engine: custom resources of the cluster, such as ``{"big": 1}``.
        strategy: how engines are placed on nodes, in Ray's words.
        traces_per_engine: most traces in flight on one engine; more of them wait.
        pin_cores: keep each engine to CPU cores of its own, ``cpus_per_engine`` of them; for engines on CPUs.
        check_s: seconds between two health checks of an engine.
        hung_after_s: seconds without an answer after which an engine counts as hung, and is killed and restarted.
        start_s: seconds that placing and starting an engine may take.
        name: actors are called ``NAME/engine-0`` and so on; made up if None.
        address: of a Ray cluster, ``auto`` for the one on this machine; if None what Ray finds, or a Ray of its own.
    """

    engines: int = Field(2, ge=1)
    cpus_per_engine: float = Field(1.0, ge=0)
    gpus_per_engine: float = Field(0.0, ge=0)
    resources_per_engine: dict[str, float] = Field(default_factory=dict)
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    traces_per_engine: int = Field(64, ge=1)
    pin_cores: bool = False
    check_s: float = Field(5.0, gt=0)
    hung_after_s: float = Field(60.0, gt=0)
    start_s: float = Field(600.0, gt=0)
    name: str | None = Field(None, min_length=1)
    address: str | None = None

    def bundle(self) -> dict[str, float]:
        """What one engine takes, as Ray's placement groups have it."""
        wanted = {"CPU": self.cpus_per_engine, "GPU": self.gpus_per_engine, **self.resources_per_engine}
        return {name: amount for name, amount in wanted.items() if amount}
