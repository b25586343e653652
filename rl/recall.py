"""How often the embedded model predicts each kind of token, given the correct text before it.

The loss hides the tokens that decide: whether two values match is one token in sixteen. This measures each kind apart.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from parallel_reason import SpawnJoin, Trace
from rl.rows import IGNORED, collate, pack

VALUES = ["copy"] * 3 + ["sum", "difference", "product", "quotient"]
PAIRING = [*VALUES, "copy", *VALUES]  # up to the verdict, the value that matches or `no`


def token_kinds(trace: Trace, dialect: SpawnJoin, no: int) -> list[str]:
    """The kind of every sampled token of a teacher's trace, in the order of the layout, [sampled tokens].

    Args:
        no: id of the token ``no``.
    """
    root = trace.root
    kinds = ["spawn"] * len(root.spans[1].ids)
    for child in trace.children(root.forks[0]):
        spans = child.spans[1:]
        sampled = [span.origin == "sampled" for span in spans for _ in span.ids]
        every = _kinds_of_child([token for span in spans for token in span.ids], dialect, no)
        kinds += [kind for kind, trained in zip(every, sampled, strict=True) if trained]
    return kinds + ["answer"] * len(root.spans[3].ids)


def _kinds_of_child(ids: list[int], dialect: SpawnJoin, no: int) -> list[str]:
    kinds: list[str] = []
    while len(kinds) < len(ids) and ids[len(kinds)] not in (dialect.result, dialect.thread_end):
        verdict = len(kinds) + len(PAIRING)
        matches = ids[verdict] != no
        kinds += [*PAIRING, "verdict yes" if matches else "verdict no"]
        if matches:
            end = next(place for place in range(verdict, len(ids)) if ids[place] in (no, dialect.result))
            failed = ids[end] == no
            kinds += ["check"] * (end - verdict - 1) + ["check fails" if failed else "check holds"]
            if not failed:
                break
    return kinds + ["return"] * (len(ids) - len(kinds))


def recall(model: Any, traces: list[Trace], dialect: SpawnJoin, no: int) -> dict[str, float]:
    """Of the tokens of each kind, the fraction that the model ranks first, given the traces' own text before it."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for trace in traces:
        batch = collate([pack(trace)])
        labels = batch.pop("shift_labels")[0]
        with torch.no_grad():
            best = model(**batch).logits[0].argmax(-1)
        places = (labels != IGNORED).nonzero()[:, 0]
        for place, kind in zip(places.tolist(), token_kinds(trace, dialect, no), strict=True):
            total[kind] += 1
            right[kind] += int(best[place] == labels[place])
    return {kind: right[kind] / total[kind] for kind in sorted(total)}


class RecallCallback(TrainerCallback):  # type: ignore[misc]
    """Appends the recall of every kind of token to a JSONL file, every so many steps and at the end."""

    def __init__(self, log: Path, every: int, traces: list[Trace], dialect: SpawnJoin, no: int) -> None:
        """Measure on ``traces`` every ``every`` steps, into ``log``."""
        self.log, self.every = log, every
        self.traces, self.dialect, self.no = traces, dialect, no

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Measure."""
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        model.eval()
        recalls = recall(model, self.traces, self.dialect, self.no)
        model.train()
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": state.global_step, **recalls}) + "\n")
        print(f"step {state.global_step}:", ", ".join(f"{kind} {value:.4f}" for kind, value in recalls.items()))
