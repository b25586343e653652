"""The training curve of the embedded model, as a table for its card.

python -m evals.curve runs/sft
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

SHOWN = ("sum", "difference", "product", "quotient", "verdict yes", "verdict no", "spawn", "answer")


def curve(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run.")],
    every: Annotated[int, typer.Option(help="Steps between two rows of the table.")] = 500,
) -> None:
    """Print the loss and the recall of each kind of token by step, as a Markdown table."""
    losses = {entry["step"]: float(entry["loss"]) for entry in _entries(run / "loss.jsonl") if "loss" in entry}
    print("| step | loss | " + " | ".join(SHOWN) + " |")
    print("|---" * (len(SHOWN) + 2) + "|")
    for entry in _entries(run / "recall.jsonl"):
        if entry["step"] % every == 0:
            recalls = " | ".join(f"{entry[kind]:.3f}" for kind in SHOWN)
            print(f"| {entry['step']} | {losses[entry['step']]:.4f} | {recalls} |")


def _entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    typer.run(curve)
