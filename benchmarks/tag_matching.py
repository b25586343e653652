"""What it costs to find tags in text rather than by their ids, on a model whose tokenizer splits them.

    python -m benchmarks.tag_matching --model ./smollm2

First the CPU time of looking for two tags in prose, of which hardly a token can end one, and in HTML, without an engine
(``--engine none`` stops there). Then the same greedy requests run with the tags to stop at as texts, and with two ids
that never come, in turn. Beside the ratio of their times, which the noise of the engine hides, stands the time of the
matching alone.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.report import Report, alternate, median_range, ratio
from benchmarks.requests import ask
from parallel_reason.engines import start
from parallel_reason.engines.base import Engine
from parallel_reason.engines.models import load_tokenizer
from parallel_reason.text import StopTexts

TAGS = ("</Goal>", "</Path>")
TEXTS = {
    "prose": "The sky is blue because of the scattering of light, which is strong for short waves. ",
    "HTML": "<p>The sky is <b>blue</b>, and the <i>sea</i> is green.</p>\n",
}
PROMPT = "Question: why is the sky blue, and the sea green? Answer in many words."


async def decode(engine: Engine, count: int, tokens: int, *, as_text: bool) -> tuple[float, list[list[int]]]:
    """Seconds of ``count`` requests at once, and the tokens of each."""
    ids = engine.tokenizer.encode(PROMPT)
    never = frozenset({engine.vocabulary - 1, engine.vocabulary - 2})
    stops = {"stop_texts": TAGS} if as_text else {"stop_ids": never}
    started = time.perf_counter()
    outputs = await asyncio.gather(*(ask(engine, [*ids, 1000 + k], tokens, **stops) for k in range(count)))
    return time.perf_counter() - started, [output.ids for output in outputs]


def match(tokenizer: Any, sampled: list[list[int]], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of looking for the tags in these tokens, one by one."""
    started = clock()
    for ids in sampled:
        found = StopTexts(tokenizer, TAGS)
        for token in ids:
            found.completed_by(token)
    return clock() - started


def alone(model: str, runs: int) -> list[list[str]]:
    """The rows of texts that no engine samples."""
    tokenizer, rows = load_tokenizer(model, "give a model folder"), []
    for name, text in TEXTS.items():
        ids = tokenizer.encode(text * 50, add_special_tokens=False)
        match(tokenizer, [ids])  # the first reads the vocabulary
        seconds = [match(tokenizer, [ids], time.process_time) for _ in range(runs)]
        rows.append([f"matching in {name}, us of CPU a token", median_range([1e6 * s / len(ids) for s in seconds])])
    return rows


async def figures(name: str, model: str, pairs: int, count: int, tokens: int) -> list[list[str]]:
    """The rows of one engine."""
    engine = await start(name, model, context=1024)
    try:
        ways = {kind: partial(decode, engine, count, tokens, as_text=kind == "text") for kind in ("text", "ids")}
        taken = await alternate(ways, pairs)
        text, ids = ([seconds for seconds, _ in taken[kind]] for kind in ("text", "ids"))
        counts = [sum(map(len, outputs)) for _, outputs in taken["ids"]]
        matching = [match(engine.tokenizer, outputs) for _, outputs in taken["ids"]]
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
    engine: Annotated[list[str] | None, typer.Option(help="Engines: vllm, torch; none for the matching alone.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 3,
    requests: Annotated[int, typer.Option(min=1, help="At once.")] = 16,
    tokens: Annotated[int, typer.Option(min=1, help="Of each request.")] = 64,
) -> None:
    """Print every figure as a table."""
    engines = [name for name in engine or ["vllm", "torch"] if name != "none"]
    rows = alone(model, pairs)
    rows += [row for name in engines for row in asyncio.run(figures(name, model, pairs, requests, tokens))]
    title = f"{requests} requests of {tokens} tokens, n={pairs}"
    Report(Console(highlight=False)).table(title, ["what", "median [least, most]"], rows)


if __name__ == "__main__":
    typer.run(main)
