"""``parallel-reason generate``: prompts in, traces out."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from parallel_reason.cli.batch import check_none_failed, run_batch
from parallel_reason.cli.console import PlainConsole, status
from parallel_reason.cli.output import TraceOutput
from parallel_reason.cli.prompts import read_prompts
from parallel_reason.cli.settings import checked, settings
from parallel_reason.cli.tree import draw
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams

OPTIONS = "--option"
ENGINE_OPTIONS = "--engine-option"
HAVE_OPTIONS = ("self", "model", "dialect", "dialect_options", "engine", "limits", "name")


def generate(
    prompt: Annotated[list[str] | None, typer.Argument(help="A prompt; several are run at once.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A UTF-8 file, one prompt a line; - is standard input.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model folder or Hub id. Default: the embedded Countdown model.")
    ] = None,
    dialect: Annotated[str, typer.Option(help="The grammar in which the model forks and joins.")] = "spawn_join",
    engine: Annotated[str, typer.Option(help="The engine that runs the model: vllm, torch or openai.")] = "vllm",
    option: Annotated[
        list[str] | None,
        typer.Option(OPTIONS, "-o", help="An option of the dialect as name=value, a TOML value: join_on=first."),
    ] = None,
    engine_option: Annotated[
        list[str] | None,
        typer.Option(
            ENGINE_OPTIONS,
            "-e",
            help="An option of the engine as name=value, a TOML value: compile=false, context=4096. "
            "What is not TOML is text: base_url=http://host:8000/v1.",
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print every trace as one line of JSON when it finishes. The order is that in which they finish: "
            "prompt_index and sample, counted from 0, say which prompt and which of its samples a trace is.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Append every trace to this JSONL file when it finishes, as --json prints it.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling: the probability that is kept; 1 keeps all.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="How many of the most likely tokens are kept; 0 keeps all.")] = 0,
    n: Annotated[int, typer.Option(help="Traces for each prompt.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    threads: Annotated[int | None, typer.Option(help="Most threads of a trace that decode at once.")] = None,
    children: Annotated[int | None, typer.Option(help="Most children of one fork.")] = None,
    forks: Annotated[int | None, typer.Option(help="Most forks in a trace.")] = None,
    depth: Annotated[int | None, typer.Option(help="How deep threads may nest; 0 allows no fork.")] = None,
    tokens_per_thread: Annotated[int | None, typer.Option(help="Most tokens sampled by one thread.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Most tokens sampled by all threads of a trace.")] = None,
    critical_path_tokens: Annotated[
        int | None, typer.Option(help="Most tokens sampled on the longest chain of threads that wait for one another.")
    ] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Most seconds for a trace.")] = None,
    context: Annotated[int | None, typer.Option(help="Most tokens of prompt and output that one thread sees.")] = None,
) -> None:
    """Run prompts and print their answers; on a terminal, draw the threads while they run.

    The line of a trace begins with the numbers of its prompt and of its sample, such as 3.0, if there are several.
    Exit status 0 if every trace ran and was written, else 1.

    Example: parallel-reason generate 22,26,31,53=27
    """
    limits = checked(
        Limits, threads=threads, children=children, forks=forks, depth=depth, tokens_per_thread=tokens_per_thread,
        tokens=tokens, critical_path_tokens=critical_path_tokens, deadline_s=deadline_s, context=context,
    )  # fmt: skip
    sampling = checked(SamplingParams, temperature=temperature, top_p=top_p, top_k=top_k, n=n, seed=seed)
    options = settings(OPTIONS, option, reserved=("name", "tokenizer"))
    engine_options = settings(ENGINE_OPTIONS, engine_option, reserved=HAVE_OPTIONS)
    prompts = read_prompts(prompt or [], file)
    from parallel_reason.llm import ParallelLLM

    console = PlainConsole()
    one = len(prompts) * n == 1
    with TraceOutput(console, json=json, out=out, many=not one) as output:
        with status(f"loading {model or 'the embedded Countdown model'} on {engine}"):
            llm = ParallelLLM(model, dialect=dialect, dialect_options=options, engine=engine, **engine_options)
        with llm:
            if one and console.is_terminal and not json:
                traces = [asyncio.run(draw(llm.stream(prompts[0], sampling, limits), console))]
                output.add(traces[0], drawn=True)
            else:
                bar = console if console.is_terminal else PlainConsole(stderr=True)
                traces = run_batch(llm, prompts, output, bar, sampling=sampling, limits=limits)
    check_none_failed(traces)
    if not output.complete:
        raise typer.Exit(1)
