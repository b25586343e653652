"""What it costs to find tags in text rather than by their ids, on a model whose tokenizer splits them.

    python -m benchmarks.tag_matching --model ./smollm2

The same greedy requests run with two tags to stop at as texts, and with two ids that never come, in turn. Beside the
ratio of their times, which the engine's own noise hides, stands the time of the matching alone.
"""

import asyncio
import time
from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.report import Report, alternate, median_range, ratio
from benchmarks.requests import ask
from parallel_reason.engines import start
from parallel_reason.engines.base import Engine
from parallel_reason.text import StopTexts

TAGS = ("</Goal>", "</Path>")
PROMPT = "Question: why is the sky blue, and the sea green? Answer in many words."


async def decode(engine: Engine, count: int, tokens: int, *, as_text: bool) -> tuple[float, list[list[int]]]:
    """Seconds of ``count`` requests at once, and the tokens of each."""
    ids = engine.tokenizer.encode(PROMPT)
    never = frozenset({engine.vocabulary - 1, engine.vocabulary - 2})
    stops = {"stop_texts": TAGS} if as_text else {"stop_ids": never}
    started = time.perf_counter()
    outputs = await asyncio.gather(*(ask(engine, [*ids, 1000 + k], tokens, **stops) for k in range(count)))
    return time.perf_counter() - started, [output.ids for output in outputs]


def match(engine: Engine, sampled: list[list[int]]) -> float:
    """Seconds of looking for the tags in these tokens, one by one."""
    started = time.perf_counter()
    for ids in sampled:
        found = StopTexts(engine.tokenizer, TAGS)
        for token in ids:
            found.completed_by(token)
    return time.perf_counter() - started


async def figures(name: str, model: str, pairs: int, count: int, tokens: int) -> list[list[str]]:
    """The rows of one engine."""
    engine = await start(name, model, context=1024)
    try:
        ways = {kind: partial(decode, engine, count, tokens, as_text=kind == "text") for kind in ("text", "ids")}
        taken = await alternate(ways, pairs)
        text, ids = ([seconds for seconds, _ in taken[kind]] for kind in ("text", "ids"))
        counts = [sum(map(len, outputs)) for _, outputs in taken["ids"]]
        matching = [match(engine, outputs) for _, outputs in taken["ids"]]
    finally:
        await engine.close()

    def per_token(times: list[float]) -> str:
        return median_range([1e6 * seconds / count for seconds, count in zip(times, counts, strict=True)])

    return [
        [f"{name}: matching, us a token", per_token(matching)],
        [f"{name}: engine, us a token", per_token(ids)],
        [f"{name}: matching over engine", ratio(matching, ids)],
        [f"{name}: tags as text over tags as ids, whole run", ratio(text, ids)],
    ]


def main(
    model: Annotated[str, typer.Option(help="A model folder whose tokenizer splits the tags.")],
    engine: Annotated[list[str] | None, typer.Option(help="Engines: vllm, torch.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 3,
    requests: Annotated[int, typer.Option(min=1, help="At once.")] = 16,
    tokens: Annotated[int, typer.Option(min=1, help="Of each request.")] = 64,
) -> None:
    """Print every figure as a table."""
    rows = [
        row
        for name in engine or ["vllm", "torch"]
        for row in asyncio.run(figures(name, model, pairs, requests, tokens))
    ]
    title = f"{requests} requests of {tokens} tokens, n={pairs}"
    Report(Console(highlight=False)).table(title, ["what", "median [least, most]"], rows)


if __name__ == "__main__":
    typer.run(main)
