"""Train the embedded Countdown model from random weights, by TRL's SFTTrainer, on traces of a solver.

    python -m rl.train_countdown --out parallel_reason/models/countdown

Every row is a whole trace, packed: the parent once, some of its children beside one another. The run can be resumed.
"""

import itertools
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from parallel_reason import SpawnJoin
from parallel_reason.tasks.countdown import Key, draw, held_out, held_out_keys
from parallel_reason.tasks.countdown import tokenizer as build_tokenizer
from rl.teacher import Teacher

RECALL_PROBLEMS = 64  # the last held-out problems, on whose traces recall is measured


def rows(
    seed: int, children: int, error_rate: float, hard_negatives_after: int, excluded: frozenset[Key]
) -> Iterator[dict[str, Any]]:
    """Training rows without end, the same for the same seed.

    Args:
        children, error_rate: as in `Teacher`.
        hard_negatives_after: how many rows come before those with hard negatives.
        excluded: keys of problems that are left out.
    """
    from rl.rows import pack

    tokenizer = build_tokenizer()
    teacher = Teacher(SpawnJoin.bind(tokenizer), tokenizer.get_vocab(), children, error_rate)
    given = 0
    for number in itertools.count():
        rng = random.Random(f"train {seed} {number}")
        problem = draw(rng)
        if problem.key not in excluded:
            yield pack(replace(teacher, hard_negatives=given >= hard_negatives_after).trace(problem, rng))
            given += 1


def learning_rate(step: int, steps: int, hard_negative_steps: int) -> float:
    """The learning rate at a step, as a fraction of the full one.

    Constant for half of ``steps``, then a cosine to 1%; over ``hard_negative_steps`` another cosine, from 40%.
    """
    if step < steps:
        return min(1.0, step / 100) * _cosine(1.0, max(0.0, step / steps * 2 - 1))
    step -= steps
    return min(0.4, 0.01 + step / 100) * _cosine(1.0, min(1.0, step / hard_negative_steps))


def _cosine(top: float, progress: float) -> float:
    return 0.01 + (top - 0.01) * (1 + math.cos(math.pi * progress)) / 2


def build_model(width: int, layers: int, seed: int) -> Any:
    """A Qwen3 decoder with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            num_key_value_heads=width // 64,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def settings(run: Path, steps: int, batch: int, seed: int, save_steps: int) -> Any:
    """TRL's settings: it takes the rows as they are, and writes checkpoints that a run can resume from."""
    import torch
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(run),
        max_steps=steps,
        per_device_train_batch_size=batch,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        max_grad_norm=1.0,
        logging_steps=50,
        save_steps=save_steps,
        save_total_limit=2,
        report_to="none",
        dataloader_num_workers=0,
        remove_unused_columns=False,
        gradient_checkpointing=False,
        disable_tqdm=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def train(
    out: Annotated[Path, typer.Option(help="Where the model goes, in Hugging Face layout.")],
    run: Annotated[Path, typer.Option(help="Checkpoints and logs; a run found there is resumed.")] = Path("runs/sft"),
    steps: Annotated[int, typer.Option(help="Steps on children without a result drawn at random.")] = 6000,
    hard_negative_steps: Annotated[int, typer.Option(help="Steps on hard negatives after these.")] = 5000,
    batch: Annotated[int, typer.Option(help="Traces in a step.")] = 4,
    children: Annotated[int, typer.Option(help="Children written out in each training trace.")] = 6,
    error_rate: Annotated[
        float, typer.Option(help="Probability of an injected error, found by the text after it, where values are near.")
    ] = 0.5,
    width: int = 128,
    layers: int = 4,
    lr: float = 7e-3,
    seed: int = 0,
    eval_steps: Annotated[int, typer.Option(help="Steps between two measurements of recall.")] = 250,
    save_steps: Annotated[int, typer.Option(help="Steps between two checkpoints; the newest two are kept.")] = 500,
) -> None:
    """Train, and write the model in bf16; the loss curve and the recalls go beside the checkpoints."""
    import torch
    from datasets import IterableDataset
    from trl import SFTTrainer

    from rl.muon import Muon
    from rl.recall import RecallCallback
    from rl.rows import collate

    tokenizer = build_tokenizer()
    dialect = SpawnJoin.bind(tokenizer)
    teacher = Teacher(dialect, tokenizer.get_vocab(), children, error_rate)
    examples = [teacher.trace(p, random.Random(k)) for k, p in enumerate(held_out()[-RECALL_PROBLEMS:])]
    model = build_model(width, layers, seed)
    typer.echo(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")

    run.mkdir(parents=True, exist_ok=True)
    optimizer = Muon(model, lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(step, steps, hard_negative_steps)
    )
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        args=settings(run, steps + hard_negative_steps, batch, seed, save_steps),
        train_dataset=IterableDataset.from_generator(
            rows,
            gen_kwargs={
                "seed": seed,
                "children": children,
                "error_rate": error_rate,
                "hard_negatives_after": steps * batch,
                "excluded": held_out_keys(),
            },
        ),
        data_collator=collate,
        optimizers=(optimizer, schedule),
        callbacks=[RecallCallback(run / "recall.jsonl", eval_steps, examples, dialect, tokenizer.get_vocab()["no"])],
    )
    trainer.train(resume_from_checkpoint=any(run.glob("checkpoint-*")) or None)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    with open(run / "loss.jsonl", "w", encoding="utf-8") as log:
        log.writelines(json.dumps(entry) + "\n" for entry in trainer.state.log_history)


if __name__ == "__main__":
    typer.run(train)
