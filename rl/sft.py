"""Supervised fine-tuning on traces, from a configuration, by TRL's SFTTrainer.

    python -m rl.sft rl/configs/embedded.toml

Every row is a whole trace, packed: each token once, who sees what as it was in the run. The run's folder has
everything, and the same command goes on with it.
"""

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from parallel_reason import ParallelLLM, ParallelReasonError, SpawnJoin
from parallel_reason.prepared import read_prepared
from parallel_reason.tasks.countdown import held_out, held_out_keys
from rl.config import read_config
from rl.run_folder import callbacks, open_run
from rl.sft_config import CountdownTeacher, Evaluation, SftConfig
from rl.sft_model import load_model, lora_config, merged

RECALL_PROBLEMS = 64  # the last held-out problems, on whose traces recall is measured


def make_dataset(config: SftConfig, dialect: str, vocabulary: int) -> Any:
    """The rows of a configuration, without end.

    Raises:
        InputError: traces that cannot be trained on.
    """
    from datasets import IterableDataset

    from rl.sft_data import read_training_traces, rows_of_files, rows_of_teacher

    if isinstance(config.data, CountdownTeacher):
        steps = config.optimization.steps - config.data.hard_negative_steps
        options = {
            "seed": config.seed,
            "children": config.data.children,
            "error_rate": config.data.error_rate,
            "least_spawned": config.data.least_spawned,
            "hard_negatives_after": steps * config.batch,
            "excluded": held_out_keys(),
        }
        return IterableDataset.from_generator(rows_of_teacher, gen_kwargs=options)
    read_training_traces(config.data.files, dialect, vocabulary)
    options = {"files": config.data.files, "dialect": dialect, "vocabulary": vocabulary, "seed": config.seed}
    return IterableDataset.from_generator(rows_of_files, gen_kwargs=options)


def train(config: SftConfig) -> Path:
    """Train, or go on with the run that is in ``config.out``; returns the folder of the trained model.

    Raises:
        ParallelReasonError: naming what is wrong and the fix; checkpoints so far are kept.
    """
    import torch

    from rl.progress import show_progress
    from rl.rows import collate
    from rl.sft_trainer import TraceTrainer

    checkpoint = open_run(config, config.out)
    model, tokenizer = load_model(config)
    prepared = read_prepared(config.model) if isinstance(config.model, str) else None
    dialect = config.dialect or (prepared.dialect if prepared else SpawnJoin.name)
    kept = callbacks(config.out, checkpoint)
    if config.recall_every:
        kept.append(recall_callback(config, config.recall_every, tokenizer))
    trainer = TraceTrainer(
        model=model,
        processing_class=tokenizer,
        args=config.optimization.trainer_args(config.out, config.batch, config.seed),
        train_dataset=make_dataset(config, dialect, len(tokenizer)),
        data_collator=collate,
        optimizers=make_optimizer(config, model),
        peft_config=config.lora and lora_config(config.lora, prepared, tied=model.config.tie_word_embeddings),
        callbacks=kept,
    )
    with ExitStack() as stack:
        if config.evaluation:
            trainer.add_callback(evaluation_callback(config, config.evaluation, dialect, trainer, tokenizer, stack))
        stack.enter_context(show_progress(trainer))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trained = trainer.model.merge_and_unload() if config.lora else trainer.model
    trained.to(getattr(torch, config.save_dtype)).save_pretrained(config.out / "model")
    tokenizer.save_pretrained(config.out / "model")
    return config.out / "model"


def make_optimizer(config: SftConfig, model: Any) -> tuple[Any, Any]:
    """The optimiser and its schedule, or None for TRL's own."""
    if config.optimizer == "adamw":
        return None, None
    from torch.optim.lr_scheduler import LambdaLR

    from rl.muon import Muon, two_stages

    optimizer = Muon(model, config.optimization.learning_rate)
    second = config.data.hard_negative_steps if isinstance(config.data, CountdownTeacher) else 0
    first = config.optimization.steps - second
    return optimizer, LambdaLR(optimizer, lambda step: two_stages(step, first, second))


def recall_callback(config: SftConfig, every: int, tokenizer: Any) -> Any:
    """Measures the recall of every kind of token on held-out problems."""
    from rl.recall import RecallCallback
    from rl.teacher import Teacher

    assert isinstance(config.data, CountdownTeacher)  # SftConfig refuses anything else
    dialect, vocabulary = SpawnJoin.bind(tokenizer), tokenizer.get_vocab()
    teacher = Teacher(dialect, vocabulary, config.data.children, config.data.error_rate)
    examples = [teacher.trace(p, random.Random(k)) for k, p in enumerate(held_out()[-RECALL_PROBLEMS:])]
    return RecallCallback(config.out / "recall.jsonl", every, examples, dialect, vocabulary["no"])


def evaluation_callback(
    config: SftConfig, evaluation: Evaluation, dialect: str, trainer: Any, tokenizer: Any, stack: ExitStack
) -> Any:
    """Starts an engine that lives as long as ``stack``, and evaluates on it."""
    from rl.evaluation import EvaluationCallback
    from rl.weights import FolderTransfer

    folder = config.out / "start"
    lora = config.lora is not None
    whole = merged(trainer.model, lora)
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    llm = stack.enter_context(
        ParallelLLM(
            str(folder),
            dialect=dialect,
            dialect_options=config.dialect_options,
            engine=evaluation.engine,
            **evaluation.engine_options,
        )
    )
    transfer = FolderTransfer(llm, config.out / "weights", whole.config, tokenizer)
    transfer.init_weight_transfer()
    stack.callback(transfer.destroy)
    return EvaluationCallback(
        llm, evaluation, transfer, lambda model: merged(model, lora).named_parameters(), trainer.log
    )


def main(
    config: Annotated[Path, typer.Argument(help="A TOML file; rl/configs has examples.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every setting, defaults too, and stop.")] = False,
) -> None:
    """Fine-tune a model on traces. The same command goes on with an interrupted run."""
    read = read_config(SftConfig, config)
    if dry_run:
        typer.echo(read.model_dump_json(indent=2))
        return
    typer.echo(f"the trained model is in {train(read)}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ParallelReasonError, OSError) as error:  # of these, a full disk: the last whole checkpoint is kept
        raise SystemExit(f"error: {error}") from None
