"""The folder of a training run: its configuration, metrics, checkpoints and attempts."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import TrainerCallback

from parallel_reason import InputError
from parallel_reason.errors import first_line
from parallel_reason.record import FrozenRecord

CONFIG, METRICS = "config.json", "metrics.jsonl"
NOT_COMPARED = ("out", "fleet", "ray_train")  # where a run lies, and where its rollouts are sampled
COMPLETE = "complete"  # in a checkpoint: all of it was written


def open_run(config: FrozenRecord, out: Path) -> Path | None:
    """Make the folder of a run, or go on in it.

    Returns:
        The newest whole checkpoint, if there is one.

    Raises:
        InputError: the folder holds a run of another configuration, or cannot be written.
    """
    written = config.model_dump_json(indent=2)
    try:
        out.mkdir(parents=True, exist_ok=True)
        kept = out / CONFIG
        if kept.exists() and (other := _first_difference(json.loads(kept.read_text()), json.loads(written))):
            raise InputError(f"{out} holds a run of another configuration ({other}); give another folder as out")
        _write_whole(kept, written)
    except OSError as error:
        raise InputError(f"{out}: {error.strerror}") from None
    whole = [path for path in out.glob("checkpoint-*") if (path / COMPLETE).exists()]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _first_difference(kept: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Which setting two configurations differ in, with both values; None if in none that counts."""
    for key in sorted(kept.keys() | new.keys()):
        if key not in NOT_COMPARED and kept.get(key) != new.get(key):
            return f"{key} was {kept.get(key)!r:.60}, is {new.get(key)!r:.60}"
    return None


class MetricsLog(TrainerCallback):  # type: ignore[misc]
    """Appends every log of a trainer to ``metrics.jsonl``; a resumed run goes on after its checkpoint."""

    def __init__(self, out: Path, resumed_at: int) -> None:
        """Drop what an earlier attempt logged after step ``resumed_at``."""
        self._path = out / METRICS
        if self._path.exists():
            lines = [line for line in self._path.read_text().splitlines() if line.endswith("}")]
            _write_whole(self._path, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= resumed_at))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any) -> None:
        """Write a line."""
        values = {name: value for name, value in (logs or {}).items() if not _missing(value)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **values}) + "\n")


class CheckpointMark(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint as whole once all of it was written: one that a full disk or a kill cut short is not used."""

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Mark the newest."""
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


@contextmanager
def written_whole(checkpoint: Path) -> Iterator[None]:
    """Around the writing of a checkpoint: one that cannot be written leaves no part of itself.

    Raises:
        OSError: for whatever torch and safetensors raise where a disk is full.
    """
    try:
        yield
    except (RuntimeError, OSError, SafetensorError) as error:
        shutil.rmtree(checkpoint, ignore_errors=True)
        raise OSError(f"{checkpoint} could not be written: {first_line(error)}") from error


def callbacks(out: Path, checkpoint: Path | None) -> list[TrainerCallback]:
    """What keeps the folder of a run that goes on from a checkpoint, or is new."""
    return [MetricsLog(out, int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0), CheckpointMark()]


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _missing(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
