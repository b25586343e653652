"""``parallel-reason check``: whether an engine and plain transformers agree on a user's own model."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from parallel_reason.cli.batch import check_none_failed
from parallel_reason.cli.console import PlainConsole, one_line, status
from parallel_reason.cli.settings import checked
from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

if TYPE_CHECKING:
    from parallel_reason.exactness import Comparison


def check(
    prompt: Annotated[
        list[str] | None, typer.Argument(help="Prompts that make the model fork. Default: a Countdown problem.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model folder or Hub id. Default: the embedded Countdown model.")
    ] = None,
    dialect: Annotated[str, typer.Option(help="The grammar in which the model forks and joins.")] = "spawn_join",
    engine: Annotated[str, typer.Option(help="The engine that is checked: vllm or torch.")] = "vllm",
    dtype: Annotated[
        str, typer.Option(help="Of weights and KV: float32, bfloat16 or float16. The bound holds in float32.")
    ] = "float32",
    n: Annotated[int, typer.Option(help="Traces for each prompt.")] = 4,
    tokens: Annotated[int, typer.Option(help="Most tokens sampled by all threads of a trace.")] = 2000,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature. 0 is greedy, and then the tokens are compared as well.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Makes sampling repeatable.")] = 0,
) -> None:
    """Run a model, score every sampled token by a plain transformers forward, and print the largest difference.

    Exit status 0 if no log-prob differs by more than 1e-4 nats, else 1. The memory of the reference is quadratic in the
    tokens of a trace: lower --tokens if it runs out.

    Example: parallel-reason check "$(cat prompt.txt)" --model ./my-model --dialect multiverse --engine torch
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise InputError(f"--dtype {dtype}: use float32, bfloat16 or float16")
    sampling = checked(SamplingParams, temperature=temperature, n=n, seed=seed)
    limits = checked(Limits, tokens=tokens, depth=3)
    from parallel_reason.exactness import BOUND, compare, load_reference
    from parallel_reason.llm import ParallelLLM

    console = PlainConsole(soft_wrap=True)
    with (
        status(f"running {model or 'the embedded Countdown model'} on {engine}"),
        ParallelLLM(model, dialect=dialect, engine=engine, dtype=dtype) as llm,
    ):
        traces = llm.generate(prompt or ["22,26,31,53=27"], sampling, limits)
        folder, tokenizer, precision = llm.engine.model, llm.tokenizer, llm.engine.precision
    check_none_failed(traces)
    with status("scoring with transformers"):
        reference = load_reference(folder, dtype)
        compared = [compare(reference, trace) for trace in traces]
    _report(console, traces, compared, tokenizer)
    console.print(f"engine {engine}: {precision}")
    same = temperature > 0 or all((one.best == one.ids).all() for one in compared)
    if not same:
        console.print("a greedy token is not the first choice of transformers")
    good = same and all(one.largest <= BOUND for one in compared)
    console.print(f"{'exact' if good else 'NOT exact'}: the bound is {BOUND:g} nats in float32")
    if not good:
        raise typer.Exit(1)


def _report(console: Console, traces: Sequence[Trace], compared: Sequence["Comparison"], tokenizer: Any) -> None:
    """Print what was compared, and where the difference is largest."""
    forks = sum(trace.ledger.forks for trace in traces)
    count = sum(len(one.ids) for one in compared)
    console.print(f"{count} sampled tokens in {len(traces)} traces with {forks} forks")
    if not forks:
        console.print("no fork: only plain decoding was compared; give a prompt that makes the model fork")
    if not count:
        return
    number = max(range(len(traces)), key=lambda k: math.inf if math.isnan(compared[k].largest) else compared[k].largest)
    worst, trace = compared[number], traces[number]
    at = worst.worst
    token = tokenizer.convert_ids_to_tokens(int(worst.ids[at]))
    console.print(
        f"largest difference {worst.largest:.1e} nats: prompt {trace.prompt_index}, sample {trace.sample}, "
        f"thread {trace.threads[worst.thread[at]].label}, sampled token {worst.place[at]} {one_line(repr(token))}: "
        f"engine {worst.reported[at]:.6f}, transformers {worst.expected[at]:.6f}"
    )
