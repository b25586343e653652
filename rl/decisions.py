"""How often the embedded model gets each kind of token right, given everything before it.

The loss hides the decisions that matter: a verdict is one token in sixteen. These are measured apart from the start.
"""

from collections import Counter
from typing import Any

import torch

from parallel_reason import SpawnJoin, Trace
from rl.packing import collate, pack

LINE = ["copy"] * 3 + ["sum", "difference", "product", "quotient"]
LINE = [*LINE, *LINE[:3], "copy", *LINE[3:], "verdict"]


def kinds(trace: Trace, dialect: SpawnJoin, no: int) -> list[str]:
    """The kind of every sampled token, in the order of the layout."""
    root = trace.root
    named = ["spawn"] * len(root.spans[1].ids)
    for fork in root.forks:
        for child in fork.children:
            named += _kinds_of_child(child.spans[1].ids, dialect, no)
    return named + ["answer"] * len(root.spans[3].ids)


def _kinds_of_child(ids: list[int], dialect: SpawnJoin, no: int) -> list[str]:
    end = next(place for place, token in enumerate(ids) if token in (dialect.result, dialect.thread_end))
    lines = [LINE[place % len(LINE)] for place in range(end)]
    for place, kind in enumerate(lines):
        if kind == "verdict":
            lines[place] = "verdict no" if ids[place] == no else "verdict yes"
    return lines + ["return"] * (len(ids) - end)


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
