"""The configuration of a run of supervised fine-tuning."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from parallel_reason import Limits, SamplingParams
from parallel_reason.record import FrozenRecord
from rl.config import Optimization


class TraceFiles(FrozenRecord):
    """Traces from JSONL files, shuffled anew in every epoch. Only their sampled tokens are trained."""

    kind: Literal["traces"] = "traces"
    files: list[Path] = Field(min_length=1)


class CountdownTeacher(FrozenRecord):
    """Traces that a solver writes for Countdown, without end; see `rl.teacher.Teacher`.

    Attributes:
        children: written out in each trace.
        error_rate: probability of an injected error, found by the text after it, where values are near.
        hard_negative_steps: the last steps, on the children that come nearest to a false match.
        least_spawned: below 1, parents spawn in waves of random size; see `Teacher`.
    """

    kind: Literal["countdown_teacher"] = "countdown_teacher"
    children: int = Field(6, ge=1)
    error_rate: float = Field(0.5, ge=0, le=1)
    hard_negative_steps: int = Field(5000, ge=0)
    least_spawned: float = Field(1.0, gt=0, le=1)


class RandomModel(FrozenRecord):
    """A Qwen3 decoder with random weights and the vocabulary of Countdown."""

    width: int = Field(128, ge=64, multiple_of=64)
    layers: int = Field(4, ge=1)


class Lora(FrozenRecord):
    """Low-rank adapters by peft; the weights at the end are merged.

    Attributes:
        rank, alpha: as peft has them.
        targets: modules by name; all linear ones but the head if ``all-linear``.
        train_added_tokens: whether the rows of the tokens that `prepare` added are trained as well.
    """

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    targets: list[str] | Literal["all-linear"] = "all-linear"
    train_added_tokens: bool = True


class Evaluation(FrozenRecord):
    """Generation with the newest weights while training.

    Attributes:
        prompt: as in `PolicyConfig`.
        every: steps between two evaluations.
        problems: of the task's test set.
    """

    task: str
    prompt: str | None = None
    every: int = Field(500, ge=1)
    problems: int = Field(64, ge=1)
    engine: str = "vllm"
    engine_options: dict[str, Any] = Field(default_factory=dict)
    sampling: SamplingParams = SamplingParams()
    limits: Limits = Limits()


class SftConfig(FrozenRecord):
    """A run of ``python -m rl.sft``.

    Attributes:
        out: the folder of the run; the trained model is in its folder ``model``.
        model: a folder or Hub id that `prepare` made ready for a dialect, or a random one.
        dialect, dialect_options: of the traces; of the model's folder if None.
        data: where traces come from.
        batch: traces in a step.
        optimizer: TRL's AdamW, or Muon for hidden matrices.
        save_dtype: of the trained model's file.
        recall_every: steps between two measurements of the recall of every kind of token, of Countdown's teacher.
    """

    out: Path
    model: str | RandomModel
    dialect: str | None = None
    dialect_options: dict[str, Any] = Field(default_factory=dict)
    data: Annotated[TraceFiles | CountdownTeacher, Field(discriminator="kind")]
    batch: int = Field(8, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    lora: Lora | None = None
    evaluation: Evaluation | None = None
    recall_every: int | None = Field(None, ge=1)
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = Field(0, ge=0)
    optimization: Optimization = Optimization()

    @model_validator(mode="after")
    def _parts_fit(self) -> "SftConfig":
        teacher = isinstance(self.data, CountdownTeacher)
        if self.batch % self.optimization.micro_batch:
            raise ValueError(
                f"batch is {self.batch}, which micro_batch={self.optimization.micro_batch} does not divide"
            )
        if isinstance(self.model, RandomModel) and not teacher:
            raise ValueError("a random model has the vocabulary of Countdown: its data is of kind countdown_teacher")
        if self.recall_every and not teacher:
            raise ValueError("recall_every measures data of kind countdown_teacher; use evaluation")
        if self.lora and (isinstance(self.model, RandomModel) or self.optimizer == "muon"):
            raise ValueError("lora is for a trained model, with optimizer='adamw'")
        return self
