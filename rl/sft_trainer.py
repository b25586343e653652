"""TRL's SFTTrainer, whose checkpoints are whole or not there."""

from pathlib import Path
from typing import Any

from trl import SFTTrainer

from rl.run_folder import written_whole


class TraceTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains on rows of traces."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with written_whole(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(model, trial)
