"""What the benchmarks have in common: random models and ids, ways that run in turn, and how figures are written."""

import itertools
import random
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from parallel_reason import SamplingParams
from parallel_reason.engines.base import Decode, Decoded, Engine
from parallel_reason.engines.vllm import VllmEngine

T = TypeVar("T")

WORDS = 4096
SIZES = {"3M": (5, 192), "80M": (11, 768)}  # layers and width, by parameters
SMALL = "3M"
NEVER: frozenset[int] = frozenset()
GREEDY = SamplingParams()
numbers = itertools.count()


def model_folder(layers: int, width: int, window: int = 16384) -> str:
    """A random Qwen3 whose end of text never comes up."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from parallel_reason.countdown.vocabulary import tokenizer

    disable_progress_bar()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=WORDS, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=max(1, width // 128), head_dim=64,
        max_position_embeddings=window, tie_word_embeddings=True, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    folder = tempfile.mkdtemp()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def words(count: int, seed: int) -> list[int]:
    """Random ids."""
    return random.Random(seed).choices(range(400, WORDS), k=count)


async def ask(engine: Engine, ids: list[int], tokens: int, **options: Any) -> Decoded:
    """One greedy request."""
    return await engine.generate(Decode(f"bench {next(numbers)}", ids, tokens, NEVER, GREEDY, **options))


async def in_turn(ways: dict[str, Callable[[], Awaitable[T]]], runs: int) -> dict[str, list[T]]:
    """Every way in turn, there and back, so many times, after one run of each that does not count."""
    for way in ways.values():
        await way()
    taken: dict[str, list[T]] = {name: [] for name in ways}
    for turn in range(runs):
        for name in list(ways)[:: (-1) ** turn]:
            taken[name].append(await ways[name]())
    return taken


def spread(values: list[float]) -> str:
    """Median, range and count."""
    return f"{middle(values)}, n={len(values)}"


def middle(values: list[float]) -> str:
    """Median and range."""
    median, least, most = map(_short, (statistics.median(values), min(values), max(values)))
    return f"{median} [{least}, {most}]"


def ms(seconds: list[float]) -> str:
    """Median and range, in milliseconds."""
    return middle([1000 * s for s in seconds])


def over(first: list[float], second: list[float]) -> str:
    """Median and range of the ratio of each pair."""
    return middle([a / b for a, b in zip(first, second, strict=True)])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass
class Desk:
    """Where engines are started, and figures are written.

    Attributes:
        models: folders, by the size of their models.
        runs: of each figure.
        markdown: whether tables are written as Markdown.
    """

    models: dict[str, str]
    runs: int
    console: Console
    markdown: bool

    async def start(self, size: str, graft: bool, **options: Any) -> VllmEngine:
        """An engine on one of the models."""
        return await VllmEngine.start(self.models[size], dtype="float32", graft=graft, **options)

    def show(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """A table, on its own."""
        if self.markdown:
            lines = [columns, ["---"] * len(columns), *rows]
            text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
            print(f"{title}\n\n{text}\n", flush=True)
            return
        table = Table(*columns, title=title)
        for row in rows:
            table.add_row(*map(escape, row))
        self.console.print(table)
