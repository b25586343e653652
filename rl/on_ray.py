"""The learner as a worker of Ray Train: it is started again where its process, its node or its engines were lost.

A start goes on from the newest whole checkpoint in the run's folder: optimiser, step, order of the problems and
generators of random numbers, so a run that was cut short gives the same weights. The folder must be on storage that
every node can reach.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from parallel_reason import EngineError
from rl.policy_config import PolicyConfig


def train_on_ray(train: Callable[[PolicyConfig], Path], config: PolicyConfig) -> Path:
    """Run ``train`` in a worker of Ray Train; ``config.ray_train`` says how.

    Raises:
        EngineError: it failed more often than it may; names the last reason.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    assert config.ray_train is not None
    out = config.out.absolute()
    needs = {"CPU": config.ray_train.cpus, "GPU": config.ray_train.gpus}
    trainer = TorchTrainer(
        _work,
        train_loop_config={"train": train, "config": config.model_copy(update={"out": out}).model_dump_json()},
        scaling_config=ScalingConfig(
            num_workers=1,
            use_gpu=config.ray_train.gpus > 0,
            resources_per_worker={kind: amount for kind, amount in needs.items() if amount},
        ),
        run_config=RunConfig(
            name="learner",
            storage_path=str(out / "ray"),
            failure_config=FailureConfig(max_failures=config.ray_train.max_failures),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # what Ray Train raises, and what it wraps, differs between its versions
        reason = str(error).strip().splitlines()[-1]
        raise EngineError(f"the learner failed {config.ray_train.max_failures + 1} times, at last: {reason}") from error
    return out / "model"


def _work(given: dict[str, Any]) -> None:
    given["train"](PolicyConfig.model_validate_json(given["config"]))
