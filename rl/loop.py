"""Reinforcement learning of a policy that forks and joins, the whole algorithm on one page.

    python -m rl.loop --steps 20

`rl.train` is the same with everything that a real run needs. Simplifications here:
- one task (Countdown), one reward (correctness less a cost of tokens), one objective (P-GRPO);
- all rollouts of a step fit one forward and backward pass; fp32; AdamW with a constant rate;
- sampling at temperature 1 without truncation, so the engine's log-probs are the policy's own;
- no divergence from the start, no checkpoints, no log but a line a step.
"""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
import typer
from transformers import AutoModelForCausalLM

from parallel_reason import ParallelLLM, SamplingParams
from parallel_reason.tasks.countdown.task import Countdown
from rl.objectives.p_grpo import PGrpo
from rl.rows import IGNORED, collate, pack
from rl.weights import FolderTransfer


def losses(
    llm: ParallelLLM, folder: Path, *, steps: int, groups: int, size: int, lr: float, cost: float, seed: int = 0
) -> Iterator[tuple[float, float, float]]:
    """Train the model of an engine; the loss, accuracy and mean tokens of every step.

    Args:
        folder: where weights pass through.
        groups, size: problems in a step, and rollouts of each.
        cost: of a thousand sampled tokens of a correct rollout.
    """
    task, objective = Countdown(), PGrpo()
    problems = task.train(seed)
    model = AutoModelForCausalLM.from_pretrained(llm.engine.model, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.0)
    transfer = FolderTransfer(llm, folder, model.config, llm.tokenizer)
    transfer.init_weight_transfer()
    for step in range(steps):
        # 1. Sample groups of rollouts with the newest weights.
        if step:
            transfer.send_weights(model.named_parameters())
        batch = list(islice(problems, groups))
        sampling = SamplingParams(temperature=1.0, n=size, seed=seed + step)
        traces = llm.generate([problem.text for problem in batch], sampling)

        # 2. Reward whole rollouts, and compare each with its group.
        correct = torch.tensor([task.correct(batch[k // size], trace.answer) for k, trace in enumerate(traces)])
        tokens = torch.tensor([trace.ledger.sampled_tokens for trace in traces])
        rewards = (correct * (1 - cost * tokens / 1000)).reshape(groups, size)
        kept = torch.ones_like(rewards, dtype=torch.bool)
        advantages = objective.advantages(rewards, kept).flatten()[:, None]
        weights = objective.weights(tokens.reshape(groups, size), kept).flatten()[:, None]

        # 3. One packed row a rollout: every token once, every sampled token a label once, who sees what as it was.
        rows = collate([pack(trace) for trace in traces])
        labels = rows.pop("shift_labels")
        mask = labels != IGNORED
        logprobs = model(**rows).logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]

        # 4. Step.
        loss = (weights * objective.token_loss(logprobs, logprobs.detach(), advantages, mask) * mask).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item(), correct.float().mean().item(), tokens.float().mean().item()
    transfer.destroy()


def main(steps: int = 20, groups: int = 4, size: int = 8, lr: float = 1e-4, cost: float = 0.1) -> None:
    """Train the embedded model for a few steps."""
    with tempfile.TemporaryDirectory() as folder, ParallelLLM(dtype="float32") as llm:
        run = losses(llm, Path(folder) / "weights", steps=steps, groups=groups, size=size, lr=lr, cost=cost)
        for step, (loss, accuracy, tokens) in enumerate(run):
            typer.echo(f"step {step:3}  loss {loss:+.5f}  accuracy {accuracy:.1%}  tokens {tokens:.0f}")


if __name__ == "__main__":
    typer.run(main)
