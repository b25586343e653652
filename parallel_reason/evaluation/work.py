"""What a trace costs in floating-point operations: tokens and contexts from its layout, times the model's shape.

A token that a model takes in costs 2 operations a weight, and 4 x layers x heads x head width for every token that it
attends to (scores and weighted sum). Sampled tokens are decoded, all others prefilled. Not counted: embeddings, which
are looked up, norms, and what sliding windows leave out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from parallel_reason.record import FrozenRecord
from parallel_reason.trace import Trace
from parallel_reason.trace.layout import Layout, layout
from parallel_reason.trace.walk import SpanStep, walk


class Work(FrozenRecord):
    """Tokens of a trace, and the tokens that they attend to, themselves included.

    Attributes:
        decoded, decoded_context: of sampled tokens.
        prefilled, prefilled_context: of all others, each computed once.
        unshared, unshared_context: prefilled if nothing were shared: every request begins with all that it sees.
    """

    decoded: int = 0
    decoded_context: int = 0
    prefilled: int = 0
    prefilled_context: int = 0
    unshared: int = 0
    unshared_context: int = 0


class ModelShape(FrozenRecord):
    """Of a model, what its cost depends on.

    Attributes:
        weights: that a token meets: of a mixture of experts, those of the experts that it goes to.
        attention: operations for every token that a token attends to.
    """

    weights: int = Field(ge=1)
    attention: int = Field(ge=1)

    def flops(self, tokens: int, context: int) -> float:
        """Floating-point operations of tokens with so much context in all."""
        return 2.0 * self.weights * tokens + float(self.attention) * context


def work_of(trace: Trace, row: Layout | None = None) -> Work:
    """Count a trace; ``row`` is its layout, if it is there already."""
    segments = iter((row or layout(trace)).segments)
    new_request = [True] * len(trace.threads)
    counts = dict.fromkeys(Work.model_fields, 0)

    def count(kind: str, seen: int, tokens: int) -> None:
        counts[kind] += tokens
        counts[f"{kind}_context"] += seen * tokens + tokens * (tokens + 1) // 2

    for step in walk(trace.threads):
        if not isinstance(step, SpanStep) or not step.span.ids:
            new_request[step.thread] = True
            continue
        segment = next(segments)
        seen, tokens = sum(stop - start for start, stop in segment.visible), segment.stop - segment.start
        sampled = step.span.origin == "sampled"
        count("decoded" if sampled else "prefilled", seen, tokens)
        if sampled and (new_request[step.thread] or step.span.taken_back):
            count("unshared", 0, seen)
        new_request[step.thread] = not sampled
    return Work(**counts)


def shape_of(model: str) -> ModelShape | None:
    """The shape of a model folder by its ``config.json``; None if there is none, or it does not say enough."""
    try:
        config = json.loads(Path(model, "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return shape_of_config(config) if isinstance(config, dict) else None


def shape_of_config(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape of a decoder with gated MLPs, such as Llama and Qwen, dense or with experts; None of others."""
    try:
        width, layers, heads = (config[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
        head = config.get("head_dim") or width // heads
        kv_heads = config.get("num_key_value_heads") or heads
        attention = 2 * width * head * (heads + kv_heads)
        experts = config.get("num_experts") or config.get("num_local_experts")
        inner = config[
            "moe_intermediate_size" if experts and "moe_intermediate_size" in config else "intermediate_size"
        ]
        mlp = 3 * width * inner
        if experts:
            mlp = mlp * config["num_experts_per_tok"] + width * experts
        weights = layers * (attention + mlp) + width * config["vocab_size"]
        return ModelShape(weights=weights, attention=4 * layers * heads * head)
    except (KeyError, TypeError, ValueError):
        return None
