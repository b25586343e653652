"""What configurations of training runs have in common: TOML files, typed; an unknown key is an error."""

import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from parallel_reason import InputError
from parallel_reason.record import FrozenRecord

C = TypeVar("C", bound=FrozenRecord)


class Optimization(FrozenRecord):
    """How weights are changed.

    Attributes:
        steps: optimiser steps.
        micro_batch: rows in one forward pass; it does not change a gradient.
        dtype: of the weights that are trained; on GPUs bfloat16 is mixed precision over them.
        trainer: further arguments of TRL's ``SFTConfig``, under their own names.
    """

    steps: int = Field(100, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    schedule: str = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    micro_batch: int = Field(8, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    save_steps: int = Field(10, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    logging_steps: int = Field(1, ge=1)
    report_to: list[str] = Field(default_factory=lambda: ["tensorboard"])
    trainer: dict[str, Any] = Field(default_factory=dict)

    def trainer_args(self, out: Path, rows: int, seed: int) -> Any:
        """TRL's ``SFTConfig`` for steps of ``rows`` rows, of which ``micro_batch`` are in a forward pass.

        Raises:
            InputError: TRL has no such argument, or refuses its value.
        """
        import torch
        from trl import SFTConfig

        arguments = {
            "output_dir": str(out),
            "max_steps": self.steps,
            "per_device_train_batch_size": self.micro_batch,
            "gradient_accumulation_steps": rows // self.micro_batch,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": self.schedule,
            "warmup_steps": self.warmup_steps,
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "save_steps": self.save_steps,
            "save_total_limit": self.keep_checkpoints,
            "logging_steps": self.logging_steps,
            "report_to": self.report_to,
            "disable_tqdm": True,
            "seed": seed,
            "use_cpu": not torch.cuda.is_available(),
            "bf16": self.dtype == "bfloat16" and torch.cuda.is_available(),
            "logging_nan_inf_filter": False,
            "remove_unused_columns": False,
            "gradient_checkpointing": False,
            "max_length": None,
            "dataset_kwargs": {"skip_prepare_dataset": True},
        }
        try:
            return SFTConfig(**{**arguments, **self.trainer})
        except (TypeError, ValueError) as error:
            raise InputError(f"optimization: {error}") from None


def read_config(kind: type[C], path: Path) -> C:
    """A configuration from a TOML file.

    Raises:
        InputError: it cannot be read, has an unknown key, or a value that its key does not take.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
