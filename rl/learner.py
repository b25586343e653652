"""The learner: TRL's SFTTrainer, whose batches are rollouts of the policy and whose loss is an objective's.

Why SFTTrainer and not one of TRL's GRPO trainers: their rows are one prompt and one completion each, or trees that need
FlashAttention 3; SFTTrainer takes ready rows with any mask, and has fused log-probs and entropy. Optimiser, schedule,
mixed precision, checkpoints, logging and callbacks are its own.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import IterableDataset
from torch import Tensor
from trl import SFTTrainer
from trl.experimental.async_grpo.async_grpo_trainer import WeightTransferProtocol

from rl.objectives import Objective
from rl.objectives.terms import kl_to_reference
from rl.paced import PacedSource
from rl.policy import Policy
from rl.rollouts import Rollout, RolloutSource, Weighed, figures, weigh
from rl.rows import IGNORED, collate, pack, padded
from rl.run_folder import written_whole

BATCH_FILE = "rollouts.pt"  # in a checkpoint: the rollouts on which steps are left


def rollout_numbers(batch: int, iterations: int) -> Iterator[dict[str, int]]:
    """The numbers of rollouts without end, those of each batch ``iterations`` times over."""
    for first in itertools.count(step=batch):
        for _ in range(iterations):
            yield from ({"rollout": number} for number in range(first, first + batch))


class PolicyTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains a policy on its own rollouts.

    A batch of whole groups is sampled with the newest weights, and ``iterations`` steps are taken on it. One row is one
    rollout, and a step takes all rows of a batch, in as many micro-batches as there are gradient accumulation steps.
    Rewards, advantages and weights are those of the whole batch, so how it is cut does not change a gradient.
    """

    def __init__(
        self,
        *,
        source: RolloutSource | PacedSource,
        objective: Objective,
        transfer: WeightTransferProtocol,
        iterations: int = 1,
        reference: Any = None,
        kl_weight: float = 0.0,
        **trainer: Any,
    ) -> None:
        """Set up; nothing is sampled yet.

        Args:
            source: samples rollouts; its engine holds the weights of the model.
            transfer: takes new weights to that engine.
            iterations: steps on each batch of rollouts.
            reference: the policy at the start, if the divergence from it is to be measured; ``kl_weight`` of that is
                added to the loss.
            trainer: what SFTTrainer takes; ``args`` says how many rows a micro-batch and a step have.
        """
        args = trainer["args"]
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
        numbers = IterableDataset.from_generator(rollout_numbers, gen_kwargs={"batch": batch, "iterations": iterations})
        super().__init__(train_dataset=numbers, data_collator=_numbers, **trainer)
        self.loss_is_scaled_for_ga = True  # the weights of tokens are those of the whole batch
        self._source = source
        self._objective = objective
        self._transfer = transfer
        self._iterations = iterations
        self._reference = reference
        self._kl_weight = kl_weight
        self._policy = Policy(source.sampling)
        self._sent_at = 0
        self._batch: list[dict[str, Tensor]] = []
        self._batch_number = -1
        for model in (self.model, reference):
            if model is not None:
                self._policy.attach(model)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], None]:
        """The micro-batches of a step; samples rollouts where the batch is a new one."""
        numbers = torch.cat([next(epoch_iterator)["rollout"] for _ in range(num_batches)]).tolist()
        number = numbers[0] // len(numbers)
        if number != self._batch_number:
            groups = self._sample(number, len(numbers))
            weighed = weigh(self._objective, groups)
            self._note(**figures(groups), left_out=1 - weighed.kept.float().mean())
            self._batch = micro_batches(groups, weighed, self._policy, len(numbers) // num_batches)
            self._batch_number = number
            self._score_old()
        return [dict(batch) for batch in self._batch], None

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The part of a micro-batch in the loss of its step."""
        mask = inputs["shift_labels"] != IGNORED
        logprobs, entropy = self._policy.logprobs(model, inputs)
        old = inputs.get("old_logprobs", logprobs.detach())
        loss = self._objective.token_loss(logprobs, old, inputs["advantages"], mask)
        if self._reference is not None:
            with torch.no_grad():
                reference, _ = self._policy.logprobs(self._reference, inputs)
            divergence = kl_to_reference(logprobs, reference)
            loss = loss + self._kl_weight * divergence
            self._note(kl_to_start=divergence.detach()[mask].mean())
        if self.state.global_step % self._iterations == 0:
            mismatch = self._policy.mismatch(model, inputs, inputs["sampler_logprobs"], logprobs)
            self._note(sampler_mismatch=mismatch.mean(), largest_sampler_mismatch=mismatch.max())
        self._note(entropy=entropy.detach()[mask].mean())
        return (inputs["weights"] * loss * mask).sum()

    def load_batch(self, checkpoint: Path) -> None:
        """Go on as a checkpoint was left: with its rollouts, if steps on them are left, or with new ones."""
        self._sent_at = -1  # the engine has the weights of the start
        if (checkpoint / BATCH_FILE).exists():
            kept = torch.load(checkpoint / BATCH_FILE, weights_only=True)
            self._batch, self._batch_number = kept["batch"], kept["number"]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with written_whole(checkpoint):
            super()._save_checkpoint(model, trial)
            if self.state.global_step % self._iterations:
                torch.save({"number": self._batch_number, "batch": self._batch}, checkpoint / BATCH_FILE)

    def _sample(self, number: int, rollouts: int) -> list[list[Rollout]]:
        """Sample a batch of rollouts with the newest weights."""
        started = time.perf_counter()
        if self._sent_at != self.state.global_step:
            self._transfer.pause()
            self._transfer.send_weights(self.model.named_parameters())
            self._transfer.resume()
            self._sent_at = self.state.global_step
        sent = time.perf_counter()
        groups = self._source.sample(number, rollouts // self._source.sampling.n)
        seconds = time.perf_counter() - sent
        tokens = sum(rollout.trace.ledger.sampled_tokens for group in groups for rollout in group)
        self._note(weight_update_s=sent - started, sampling_s=seconds, sampled_tokens_per_s=tokens / seconds)
        return groups

    def _score_old(self) -> None:
        """Where a batch is not the newest policy's at every step, keep the log-probs of the policy that sampled it."""
        if self._source.staleness:
            for batch in self._batch:
                batch["old_logprobs"] = batch["sampler_logprobs"].nan_to_num()
            return
        if self._iterations == 1:
            return
        for batch in self._batch:
            with torch.no_grad():
                batch["old_logprobs"], _ = self._policy.logprobs(self.model, self._prepare_inputs(dict(batch)))

    def _note(self, **values: float | Tensor) -> None:
        """Values for the log; a step's are averaged, but of what is called largest the largest is kept."""
        metrics: defaultdict[str, list[float]] = self._metrics["train"]
        for name, value in values.items():
            if name.startswith("largest"):
                metrics[name] = [max([float(value), *metrics[name]])]
            else:
                metrics[name].append(float(value))


def micro_batches(groups: list[list[Rollout]], weighed: Weighed, policy: Policy, size: int) -> list[dict[str, Tensor]]:
    """The rows of a batch of rollouts, ``size`` in each micro-batch, with what their loss needs.

    Besides what `collate` gives: ``sampler_logprobs`` and ``ways`` [rows, tokens], ``advantages`` and ``weights``
    [rows, 1].
    """
    rows = []
    for rollout in (rollout for group in groups for rollout in group):
        row = pack(rollout.trace)
        rows.append({**row, "ways": policy.ways(rollout.trace, row["threads"])})
    batches = []
    for first in range(0, len(rows), size):
        part = slice(first, first + size)
        batches.append(
            {
                **collate(rows[part]),
                "sampler_logprobs": padded(rows[part], "sampler_logprobs", torch.nan),
                "ways": padded(rows[part], "ways", -1),
                "advantages": weighed.advantages.flatten()[part, None],
                "weights": weighed.weights.flatten()[part, None],
            }
        )
    return batches


def _numbers(rows: list[dict[str, int]]) -> dict[str, Tensor]:
    return {"rollout": torch.tensor([row["rollout"] for row in rows])}
