"""Chats through the session beside the same requests sent straight to vLLM.

    python -m benchmarks.chats --model ./smollm2

Every way samples the same number of tokens for the same prompts, greedily, on one engine and in turn: chats without a
dialect, chats in a dialect whose tags are looked for in the text, and vLLM alone, which gets token ids. A first run of
each, which is not counted, leaves the prompts in the prefix cache: what is timed is decoding. Beside the ratio of
tokens a second, which the noise of the engine hides, stands the CPU time of this process.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from benchmarks.overhead import send_again
from benchmarks.report import Report, alternate, median_range, ratio
from parallel_reason import ParallelLLM, SamplingParams, Trace
from parallel_reason.trace import Message

TOPICS = ("gold", "rivers", "bread", "bridges", "whales", "chess", "tea", "the moon")
ASKS = ("Name three uses of", "What is odd about", "Who needs", "Why do people like", "What is the price of",
        "Write a line about", "Where do we find", "How old is")  # fmt: skip
PLAIN = "vLLM"


class Taken(NamedTuple):
    """Seconds of one run: by the clock, and of this process on a CPU."""

    wall_s: float
    cpu_s: float


def chats(count: int) -> list[list[Message]]:
    """So many chats of one message."""
    asked = [f"{ask} {topic}?" for topic in TOPICS for ask in ASKS]
    return [[{"role": "user", "content": asked[number % len(asked)]}] for number in range(count)]


async def timed(work: Callable[[], Awaitable[object]]) -> Taken:
    """How long a run takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    return Taken(time.perf_counter() - wall, time.process_time() - cpu)


def measure(llm: ParallelLLM, names: list[str], count: int, tokens: int, pairs: int) -> list[list[str]]:
    """The rows: each way's tokens a second over vLLM's, and its own CPU time."""
    sampling = SamplingParams(max_tokens=tokens, ignore_eos=True)
    faces = {name: llm.with_dialect(name) for name in names}
    recorded: dict[str, list[Trace]] = {}

    async def through_session(name: str) -> None:
        recorded[name] = await faces[name].session.run(chats(count), sampling)

    async def bare() -> None:
        await send_again(llm, recorded[names[0]])

    ways = {name: partial(timed, partial(through_session, name)) for name in names}
    taken = llm.run_coroutine(alternate(ways | {PLAIN: partial(timed, bare)}, pairs))
    sampled = {name: sum(trace.ledger.sampled_tokens for trace in traces) for name, traces in recorded.items()}
    if set(sampled.values()) != {count * tokens}:
        raise SystemExit(f"not every chat was {tokens} tokens long: {sampled}")
    walls = {name: [one.wall_s for one in runs] for name, runs in taken.items()}
    return [
        [
            name,
            median_range([count * tokens / seconds for seconds in walls[name]]),
            "" if name == PLAIN else ratio(walls[PLAIN], walls[name]),
            median_range([1e6 * one.cpu_s / (count * tokens) for one in runs]),
        ]
        for name, runs in taken.items()
    ]


def main(
    model: Annotated[str, typer.Option(help="A folder or Hub id of a model with a chat template.")],
    dialect: Annotated[list[str] | None, typer.Option(help="none, and one whose tags are text.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 3,
    count: Annotated[int, typer.Option("--chats", min=1, help="At once.")] = 64,
    tokens: Annotated[int, typer.Option(min=1, help="Of each chat.")] = 48,
    dtype: Annotated[str, typer.Option(help="Of the weights.")] = "bfloat16",
) -> None:
    """Print every figure as a table."""
    with ParallelLLM(model, dialect="none", context=1024, dtype=dtype) as llm:
        rows = measure(llm, dialect or ["none", "threadweaver"], count, tokens, pairs)
    columns = ["way", "tokens a second", "over vLLM", "CPU of this process, us a token"]
    Report(Console(highlight=False)).table(f"{count} chats of {tokens} tokens, {dtype}, n={pairs}", columns, rows)


if __name__ == "__main__":
    typer.run(main)
