"""The configuration of a run of reinforcement learning."""

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from parallel_reason import Fleet, Limits, SamplingParams
from parallel_reason.record import FrozenRecord
from rl.config import Optimization
from rl.objectives import OBJECTIVES, Objective
from rl.rewards import Correctness, Part

# Fields of sampling whose effect on log-probs training knows, or that have none.
TRAINABLE = (
    "temperature", "top_k", "top_p", "n", "seed", "logprobs", "max_tokens", "stop", "stop_token_ids", "below",
    "threads",
)  # fmt: skip


class RayTrain(FrozenRecord):
    """How Ray Train runs the learner.

    Attributes:
        max_failures: how often it is started again, from its newest checkpoint.
        cpus, gpus: that it takes.
    """

    max_failures: int = Field(3, ge=0)
    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)


class PolicyConfig(FrozenRecord):
    """A run of ``python -m rl.train``.

    Attributes:
        out: the folder of the run: checkpoints, metrics, traces, the model.
        model: a folder or Hub id; the embedded Countdown model if None.
        task: see `parallel_reason.tasks.find`.
        prompt: the name or file of a prompt template, into which each problem is put; None for the problem alone.
        engine, engine_options, dialect, dialect_options: as of `ParallelLLM`.
        fleet: engines on Ray in place of one in this process; it does not change what a synchronous run gives.
        ray_train: the learner as a worker of Ray Train, which restarts it; None for this process.
        staleness: how many batches old the weights may be that sample a batch; above 0 sampling goes on while the
            learner trains.
        groups: problems in a batch of rollouts; ``sampling.n`` rollouts of each.
        iterations: steps on each batch.
        objective: its ``name``, and its own options.
        rewards: parts of the reward, each with its ``kind``.
        kl_weight: of the divergence from the start; ``measure_kl`` measures it where it weighs nothing.
        seed: of problems, sampling and training.
    """

    out: Path
    model: str | None = None
    task: str = "countdown"
    prompt: str | None = None
    engine: str = "vllm"
    engine_options: dict[str, Any] = Field(default_factory=dict)
    dialect: str | None = None
    dialect_options: dict[str, Any] = Field(default_factory=dict)
    fleet: Fleet | None = None
    ray_train: RayTrain | None = None
    staleness: int = Field(0, ge=0)
    groups: int = Field(8, ge=1)
    iterations: int = Field(1, ge=1)
    sampling: SamplingParams = SamplingParams(temperature=1.0, n=8)
    limits: Limits = Limits()
    objective: dict[str, Any] = Field(default_factory=lambda: {"name": "grpo"})
    rewards: list[Part] = Field([Correctness()], min_length=1)
    kl_weight: float = Field(0.0, ge=0)
    measure_kl: bool = True
    seed: int = Field(0, ge=0)
    optimization: Optimization = Optimization()

    @field_validator("rewards")
    @classmethod
    def _parts_are_told_apart(cls, parts: list[Part]) -> list[Part]:
        kinds = [part.kind for part in parts]
        if not kinds or len(set(kinds)) < len(kinds):
            raise ValueError(f"rewards are {kinds}; give at least one, and each kind once")
        return parts

    @field_validator("objective")
    @classmethod
    def _objective_exists(cls, objective: dict[str, Any]) -> dict[str, Any]:
        make_objective(objective)
        return objective

    @model_validator(mode="after")
    def _stale_batches_can_be_trained(self) -> "PolicyConfig":
        if not self.staleness:
            return self
        if any((each.temperature, each.top_k, each.top_p) != (1.0, 0, 1.0) for each in self.sampling.every()):
            raise ValueError("staleness needs the log-probs that were sampled: temperature=1, without top_k and top_p")
        if self.engine == "torch" and self.fleet is None:
            raise ValueError("staleness: engine 'torch' changes weights between traces only; use vllm, or a fleet")
        return self

    @model_validator(mode="after")
    def _batches_come_out_even(self) -> "PolicyConfig":
        for sampling in self.sampling.every():
            if sampling.temperature == 0:
                raise ValueError("a policy that is trained is sampled: give every thread a temperature above 0")
            other = next((field for field in sampling.given() if field not in TRAINABLE), None)
            if other is not None:
                raise ValueError(f"sampling.{other} changes what is sampled in a way that training does not know")
        if self.sampling.n < 2:
            raise ValueError(f"sampling.n is {self.sampling.n}: a group needs at least 2 rollouts")
        rollouts, rows = self.groups * self.sampling.n, self.optimization.micro_batch
        if rollouts % rows:
            raise ValueError(
                f"groups * sampling.n is {rollouts}, which optimization.micro_batch={rows} does not divide"
            )
        return self


def make_objective(options: dict[str, Any]) -> Objective:
    """An objective by its name and options.

    Raises:
        ValueError: there is none of that name, or it has no such option.
    """
    name, options = options.get("name"), {key: value for key, value in options.items() if key != "name"}
    if name not in OBJECTIVES:
        raise ValueError(f"there is no objective {name!r}; there is {', '.join(OBJECTIVES)}")
    try:
        return OBJECTIVES[name](**options)
    except TypeError as error:
        raise ValueError(f"objective {name!r}: {error}") from None
