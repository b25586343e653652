"""TRL's SFTTrainer for rows of traces."""

from pathlib import Path
from typing import Any

from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor
from torch.nn.functional import cross_entropy
from trl import SFTTrainer

from rl.run_folder import written_whole


class TraceTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains on rows of traces; a checkpoint is whole or not there."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean loss of a step's labels.

        TRL's fused head reads the weights of the output layer, which do not have the rows that peft trains whole.
        """
        if not isinstance(model.get_output_embeddings(), AuxiliaryTrainingWrapper):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["shift_labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "shift_labels"})
        total = cross_entropy(outputs.logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
        loss = total / (num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum())
        return (loss, outputs) if return_outputs else loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with written_whole(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(model, trial)
