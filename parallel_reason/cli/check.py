"""``parallel-reason check``: whether an engine and plain transformers agree on a user's own model."""

from typing import Annotated

import typer
from rich.console import Console

from parallel_reason.errors import InputError
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams


def check(
    prompt: Annotated[
        list[str] | None, typer.Argument(help="Prompts that make the model fork. Default: a Countdown problem.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model folder or Hub id. Default: the embedded Countdown model.")
    ] = None,
    dialect: Annotated[str, typer.Option(help="The grammar in which the model forks and joins.")] = "spawn_join",
    engine: Annotated[str, typer.Option(help="The engine to be checked.")] = "vllm",
    dtype: Annotated[str, typer.Option(help="Of weights and KV; the bound holds in float32.")] = "float32",
    n: Annotated[int, typer.Option(help="Traces for each prompt.")] = 4,
    tokens: Annotated[int, typer.Option(help="Sampled by one trace.")] = 2000,
    temperature: Annotated[float, typer.Option(help="0 is greedy, and then the tokens are compared as well.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Makes sampling repeatable.")] = 0,
) -> None:
    """Run a model, score every token it sampled by a plain transformers forward, and print the largest difference.

    Exit status 0 if no log-prob differs by more than 1e-4, else 1. Memory of the reference is quadratic in the tokens
    of a trace: lower --tokens if it runs out.

    Example: parallel-reason check "$(cat prompt.txt)" --model ./my-model --dialect multiverse --engine torch
    """
    from parallel_reason.check import BOUND, compare, load_reference
    from parallel_reason.llm import ParallelLLM

    if dtype not in ("float32", "bfloat16", "float16"):
        raise InputError(f"--dtype {dtype}: use float32, bfloat16 or float16")
    console = Console(highlight=False)
    with (
        console.status(f"running {model or 'the embedded Countdown model'} on {engine}"),
        ParallelLLM(model, dialect=dialect, engine=engine, dtype=dtype) as llm,
    ):
        sampling = SamplingParams(temperature=temperature, n=n, seed=seed)
        traces = llm.generate(prompt or ["22,26,31,53=27"], sampling, Limits(tokens=tokens, depth=3))
        folder, words = llm.engine.model, llm.engine.tokenizer
    with console.status("scoring with transformers"):
        reference = load_reference(folder, dtype)
        compared = [compare(reference, trace) for trace in traces]
    number = max(range(len(traces)), key=lambda k: compared[k].largest)
    worst, trace = compared[number], traces[number]
    counted = sum(len(one.ids) for one in compared)
    forks = sum(one.ledger.forks for one in traces)
    console.print(f"{counted} sampled tokens in {len(traces)} traces with {forks} forks")
    if not forks:
        console.print("no fork: only plain decoding was compared; give a prompt that makes the model fork")
    if counted:
        at = worst.worst
        token = words.convert_ids_to_tokens(int(worst.ids[at]))
        label = trace.threads[worst.thread[at]].label
        console.print(
            f"largest difference {worst.largest:.1e} nats: trace {number}, thread {label}, sampled token "
            f"{worst.place[at]} {token!r}: engine {worst.reported[at]:.6f}, transformers {worst.expected[at]:.6f}",
            markup=False,
        )
    same = temperature > 0 or all((one.best == one.ids).all() for one in compared)
    if not same:
        console.print("a greedy token is not the reference's first choice")
    good = same and all(one.largest <= BOUND for one in compared)
    console.print(f"{'exact' if good else 'NOT exact'}: the bound is {BOUND:g} nats in float32")
    if not good:
        raise typer.Exit(1)
