"""Reinforcement learning of a policy that forks and joins, from a configuration.

    python -m rl.train rl/configs/countdown.toml

One process trains, and one engine samples, or several on Ray (docs/fleet.md). The run's folder has everything, and the
same command goes on with it.
"""

from pathlib import Path
from typing import Annotated

import typer

from parallel_reason import ParallelLLM, ParallelReasonError
from parallel_reason.tasks import find
from rl.config import read_config
from rl.policy_config import PolicyConfig, make_objective
from rl.run_folder import callbacks, open_run


def train(config: PolicyConfig) -> Path:
    """Train, or go on with the run that is in ``config.out``; returns the folder of the trained model.

    Raises:
        ParallelReasonError: naming what is wrong and the fix; checkpoints so far are kept.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from parallel_reason.fleet.session import FleetSession
    from rl.learner import PolicyTrainer
    from rl.paced import PacedSource
    from rl.progress import show_progress
    from rl.rollouts import RolloutSource
    from rl.weights import FolderTransfer

    checkpoint = open_run(config, config.out)
    task = find(config.task)
    with ParallelLLM(
        config.model,
        dialect=config.dialect,
        dialect_options=config.dialect_options,
        engine=config.engine,
        limits=config.limits,
        fleet=config.fleet,
        **config.engine_options,
    ) as llm:
        model = AutoModelForCausalLM.from_pretrained(llm.engine.model, dtype=getattr(torch, config.optimization.dtype))
        reference = None
        if config.kl_weight or config.measure_kl:
            reference = (
                AutoModelForCausalLM.from_pretrained(llm.engine.model, dtype=model.dtype).eval().requires_grad_(False)
            )
        transfer = FolderTransfer(llm, config.out / "weights", model.config, llm.tokenizer)
        transfer.init_weight_transfer()
        source = RolloutSource(
            llm,
            task,
            config.sampling,
            config.limits,
            config.rewards,
            seed=config.seed,
            prompt=config.prompt,
            folder=config.out / "traces",
        )
        batches = -(-config.optimization.steps // config.iterations)
        trainer = PolicyTrainer(
            model=model,
            processing_class=llm.tokenizer,
            args=config.optimization.trainer_args(config.out, config.groups * config.sampling.n, config.seed),
            source=PacedSource(source, config.staleness, batches) if config.staleness else source,
            objective=make_objective(config.objective),
            transfer=transfer,
            iterations=config.iterations,
            reference=reference,
            kl_weight=config.kl_weight,
            callbacks=callbacks(config.out, checkpoint),
        )
        if checkpoint:
            trainer.load_batch(checkpoint)
        engines = llm.session.engines if isinstance(llm.session, FleetSession) else None
        with show_progress(trainer, engines):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        transfer.destroy()
    trainer.save_model(str(config.out / "model"))
    return config.out / "model"


def main(
    config: Annotated[Path, typer.Argument(help="A TOML file; rl/configs has examples.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the file says, defaults too, and stop.")
    ] = False,
) -> None:
    """Train a policy by reinforcement learning. The same command goes on with an interrupted run."""
    read = read_config(PolicyConfig, config)
    if dry_run:
        typer.echo(read.model_dump_json(indent=2))
        return
    typer.echo(f"the trained model is in {train(read) if read.ray_train is None else _on_ray(read)}")


def _on_ray(config: PolicyConfig) -> Path:
    import rl.train  # what goes to Ray is found there by this name, not as __main__
    from rl.on_ray import train_on_ray

    return train_on_ray(rl.train.train, config)


def cli() -> None:
    """Run the command; an error is one line."""
    try:
        typer.run(main)
    except (ParallelReasonError, OSError) as error:  # of these, a full disk: the last whole checkpoint is kept
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    cli()
