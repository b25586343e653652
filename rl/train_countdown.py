"""Train the embedded Countdown model from random weights, by TRL's SFTTrainer, on traces of the project's solver.

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
from parallel_reason.countdown.problem import draw, held_out
from parallel_reason.countdown.vocabulary import tokenizer as build_tokenizer
from rl.teacher import Teacher

HELD_OUT = 2000  # problems that training never sees, in any order of their numbers
WATCHED = 64  # the last of these, on which every decision's recall is watched

Key = tuple[tuple[int, ...], int]


def rows(seed: int, children: int, stumbles: float, easy: int, tests: frozenset[Key]) -> Iterator[dict[str, Any]]:
    """Training rows without end, the same for the same seed; after the first ``easy``, with near misses.

    Problems with one of the keys ``tests`` are left out.
    """
    from rl.packing import pack

    tokenizer = build_tokenizer()
    teacher = Teacher(SpawnJoin.bind(tokenizer), tokenizer.get_vocab(), children, stumbles)
    given = 0
    for number in itertools.count():
        rng = random.Random(f"train {seed} {number}")
        problem = draw(rng)
        if problem.key not in tests:
            yield pack(replace(teacher, hard=given >= easy).trace(problem, rng))
            given += 1


def learning_rate(step: int, steps: int, polish: int) -> float:
    """The share of the full rate at a step.

    Constant for half of ``steps``, then a cosine to 1%; for ``polish`` more steps another cosine, which begins at 40%.
    """
    if step < steps:
        fall = max(0.0, step / steps * 2 - 1)
        return min(1.0, step / 100) * _cosine(1.0, fall)
    return min(0.4, 0.01 + (step - steps) / 100) * _cosine(1.0, min(1.0, (step - steps) / polish))


def _cosine(top: float, share: float) -> float:
    return 0.01 + (top - 0.01) * (1 + math.cos(math.pi * share)) / 2


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


def settings(run: Path, steps: int, batch: int, seed: int, save: int) -> Any:
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
        save_steps=save,
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
    steps: int = 6000,
    polish: Annotated[int, typer.Option(help="Steps on near misses after these.")] = 5000,
    batch: int = 4,
    children: Annotated[int, typer.Option(help="Children written out in each training trace.")] = 6,
    stumbles: Annotated[float, typer.Option(help="Chance of a slip to mend, wherever two values are near.")] = 0.5,
    width: int = 128,
    layers: int = 4,
    lr: float = 7e-3,
    seed: int = 0,
    watch: Annotated[int, typer.Option(help="Measure the recall of every decision each so many steps.")] = 250,
    save: Annotated[int, typer.Option(help="Write a checkpoint each so many steps; the newest two are kept.")] = 500,
) -> None:
    """Train and write the model in bf16; the loss curve and every decision's recall go beside the checkpoints."""
    import torch
    from datasets import IterableDataset
    from trl import SFTTrainer

    from rl.decisions import Watch
    from rl.muon import Muon
    from rl.packing import collate

    tokenizer = build_tokenizer()
    dialect = SpawnJoin.bind(tokenizer)
    teacher = Teacher(dialect, tokenizer.get_vocab(), children, stumbles)
    tests = held_out(HELD_OUT)
    examples = [teacher.trace(problem, random.Random(k)) for k, problem in enumerate(tests[-WATCHED:])]
    model = build_model(width, layers, seed)
    typer.echo(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")

    run.mkdir(parents=True, exist_ok=True)
    optimizer = Muon(model, lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps, polish))
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        args=settings(run, steps + polish, batch, seed, save),
        train_dataset=IterableDataset.from_generator(
            rows,
            gen_kwargs={
                "seed": seed,
                "children": children,
                "stumbles": stumbles,
                "easy": steps * batch,
                "tests": frozenset(problem.key for problem in tests),
            },
        ),
        data_collator=collate,
        optimizers=(optimizer, schedule),
        callbacks=[Watch(run / "decisions.jsonl", watch, examples, dialect, tokenizer.get_vocab()["no"])],
    )
    trainer.train(resume_from_checkpoint=any(run.glob("checkpoint-*")) or None)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    with open(run / "loss.jsonl", "w", encoding="utf-8") as log:
        log.writelines(json.dumps(entry) + "\n" for entry in trainer.state.log_history)


if __name__ == "__main__":
    typer.run(train)
