"""A training step on packed traces beside the same tokens as one row a thread, as ratios from one run.

    python -m benchmarks.packing

A trace forks after a prefix into children of some length, whose results come back as a message. Packed, every token is
computed once; one row a thread repeats the prefix. Both are a forward and a backward pass over all sampled tokens, with
the same loss; float32, random weights.
"""

import shutil
import time
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from benchmarks.models import FIRST_ID, SIZES, random_ids, random_model
from benchmarks.report import Report, median_range
from parallel_reason import Fork, Span, Thread, Trace
from rl.plain_rows import plain_rows
from rl.policy import MODEL_INPUTS
from rl.rows import IGNORED, collate, pack

PREFIX, CHILD, ROOT = 500, 128, 16  # tokens of the prompt, of each child, and of the root before the fork and after it
CHILDREN = (2, 8, 32)


def forked(children: int) -> Trace:
    """A trace of random ids."""
    message = Span(ids=random_ids(2 * children, 9), origin="injected")
    spans = [
        Span(ids=random_ids(PREFIX, 0), origin="prompt"),
        Span(ids=random_ids(ROOT, 1), origin="sampled", logprobs=[0.0] * ROOT, policy_version=0),
        message,
        Span(ids=random_ids(ROOT, 2), origin="sampled", logprobs=[0.0] * ROOT, policy_version=0),
    ]
    fork = Fork(at=2, join_rule="message", children=[*range(1, children + 1)])
    threads = [Thread(label="0", spans=spans, forks=[fork], status="finished")]
    for k in range(children):
        own = [
            Span(ids=[FIRST_ID + k], origin="injected"),
            Span(ids=random_ids(CHILD, 3 + k), origin="sampled", logprobs=[0.0] * CHILD, policy_version=0),
        ]
        threads.append(Thread(label=f"0.{k}", parent=0, spans=own, status="finished"))
    return Trace(dialect="spawn_join", model="none", prompt="", threads=threads)


def one_row_a_thread(trace: Trace) -> dict[str, torch.Tensor]:
    """What a causal model and the loss take, padded, [rows, tokens]."""
    rows = plain_rows(trace)
    ids = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True)
    labels = [
        torch.tensor([token if own else IGNORED for token, own in zip(row.ids[1:], row.trained[1:], strict=True)])
        for row in rows
    ]
    return {"input_ids": ids, "shift_labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED)}


def step(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Seconds of a forward and a backward pass, and the loss, a mean over labels."""
    model.zero_grad()
    started = time.perf_counter()
    logits = model(**{name: inputs[name] for name in MODEL_INPUTS if name in inputs}).logits
    labels = inputs["shift_labels"]
    loss = cross_entropy(logits[:, : labels.shape[1]].flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    loss.backward()
    return time.perf_counter() - started, loss.item()


def main(
    size: Annotated[
        str, typer.Option(help=f"Of the model: {', '.join(s for s in SIZES if SIZES[s].written)}.")
    ] = "80M",
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each ratio.")] = 3,
) -> None:
    """Print the table."""
    folder = random_model(SIZES[size])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    shutil.rmtree(folder)
    rows = []
    for children in CHILDREN:
        trace = forked(children)
        packed, plain = collate([pack(trace)]), one_row_a_thread(trace)
        tokens = packed["input_ids"].numel() / plain["input_ids"].numel()
        taken = [(step(model, packed), step(model, plain)) for _ in range(pairs)]
        assert all(abs(a[1] - b[1]) < 1e-4 for a, b in taken), "the two are not the same loss"
        ratios = [a[0] / b[0] for a, b in taken]
        seconds = [median_range([pair[way][0] for pair in taken]) for way in (0, 1)]
        rows.append(
            [
                str(children),
                *seconds,
                median_range(ratios),
                f"{tokens:.3f}",
                f"{sorted(ratios)[len(ratios) // 2] / tokens:.2f}",
            ]
        )
    Report(Console(highlight=False)).table(
        f"a step on a trace: prefix {PREFIX}, children of {CHILD}, {size}, n={pairs}",
        ["children", "packed, s", "one row a thread, s", "packed / it", "tokens, packed / it", "seconds / tokens"],
        rows,
    )


if __name__ == "__main__":
    typer.run(main)
