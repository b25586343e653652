"""How often the embedded model gets each kind of token right, given everything before it.

The loss hides the decisions that matter: a verdict is one token in sixteen. These are measured apart from the start.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from parallel_reason import SpawnJoin, Trace
from rl.packing import collate, pack

LINE = ["copy"] * 3 + ["sum", "difference", "product", "quotient"]
LINE = [*LINE, "copy", *LINE]


def kinds(trace: Trace, dialect: SpawnJoin, no: int) -> list[str]:
    """The kind of every sampled token, in the order of the layout."""
    root = trace.root
    named = ["spawn"] * len(root.spans[1].ids)
    for child in root.forks[0].children:
        spans = child.spans[1:]
        sampled = [span.origin == "sampled" for span in spans for _ in span.ids]
        every = _kinds_of_child([token for span in spans for token in span.ids], dialect, no)
        named += [kind for kind, learned in zip(every, sampled, strict=True) if learned]
    return named + ["answer"] * len(root.spans[3].ids)


def _kinds_of_child(ids: list[int], dialect: SpawnJoin, no: int) -> list[str]:
    named: list[str] = []
    while len(named) < len(ids) and ids[len(named)] not in (dialect.result, dialect.thread_end):
        verdict = len(named) + len(LINE)
        found = ids[verdict] != no
        named += [*LINE, "verdict yes" if found else "verdict no"]
        if found:
            end = next(place for place in range(verdict, len(ids)) if ids[place] in (no, dialect.result))
            failed = ids[end] == no
            named += ["check"] * (end - verdict - 1) + ["check fails" if failed else "check holds"]
            if not failed:
                break
    return named + ["return"] * (len(ids) - len(named))


@torch.no_grad()
def recall(model: Any, traces: list[Trace], dialect: SpawnJoin, no: int) -> dict[str, float]:
    """Share of tokens of each kind that the model ranks first, under the teacher's own text."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for trace in traces:
        batch = collate([pack(trace)])
        labels = batch.pop("shift_labels")[0]
        best = model(**batch).logits[0].argmax(-1)
        places = (labels != -100).nonzero()[:, 0]
        for place, kind in zip(places.tolist(), kinds(trace, dialect, no), strict=True):
            total[kind] += 1
            right[kind] += int(best[place] == labels[place])
    return {kind: right[kind] / total[kind] for kind in sorted(total)}


class Watch(TrainerCallback):  # type: ignore[misc]
    """Appends the recall of every decision to a JSONL file, every so many steps and at the end."""

    def __init__(self, log: Path, every: int, traces: list[Trace], dialect: SpawnJoin, no: int) -> None:
        """``traces`` are those that the recall is measured on."""
        self.log, self.every = log, every
        self.traces, self.dialect, self.no = traces, dialect, no

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Measure."""
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        model.eval()
        shares = recall(model, self.traces, self.dialect, self.no)
        model.train()
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": state.global_step, **shares}) + "\n")
        print(f"step {state.global_step}:", ", ".join(f"{kind} {share:.4f}" for kind, share in shares.items()))
