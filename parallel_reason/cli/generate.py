"""``parallel-reason generate``: prompts in, traces out."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console

from parallel_reason.cli.output import Sink, draw, run_all
from parallel_reason.errors import EngineError, InputError
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams

T = TypeVar("T", Limits, SamplingParams)


def generate(
    prompt: Annotated[list[str] | None, typer.Argument(help="A prompt; several are run at once.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A file with one prompt a line; - for standard input.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A model folder or Hub id. Default: the embedded Countdown model.")
    ] = None,
    dialect: Annotated[str, typer.Option(help="The grammar in which the model forks and joins.")] = "spawn_join",
    engine: Annotated[str, typer.Option(help="What decodes.")] = "vllm",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="A setting of the dialect, such as join_on=first.")
    ] = None,
    engine_option: Annotated[
        list[str] | None,
        typer.Option("--engine-option", "-e", help="A setting of the engine, such as base_url=http://host:8000/v1."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print every trace as one line of JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Append every trace to this JSONL file as it finishes.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    n: Annotated[int, typer.Option(help="Traces for each prompt.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of a trace decoding at once.")] = None,
    children: Annotated[int | None, typer.Option(help="Children of one fork.")] = None,
    forks: Annotated[int | None, typer.Option(help="Forks in a trace.")] = None,
    depth: Annotated[int | None, typer.Option(help="How deep threads may nest.")] = None,
    tokens_per_thread: Annotated[int | None, typer.Option(help="Sampled by one thread.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Sampled by all threads of a trace.")] = None,
    critical_path_tokens: Annotated[int | None, typer.Option(help="Sampled on the longest chain of threads.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Seconds for a trace.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that one thread may see.")] = None,
) -> None:
    """Run prompts and print their answers; on a terminal, draw the threads while they run.

    Example: parallel-reason generate 22,26,31,53=27
    """
    limits = _checked(
        Limits, threads=threads, children=children, forks=forks, depth=depth, tokens_per_thread=tokens_per_thread,
        tokens=tokens, critical_path_tokens=critical_path_tokens, deadline_s=deadline_s, context=context,
    )  # fmt: skip
    sampling = _checked(SamplingParams, temperature=temperature, top_p=top_p, top_k=top_k, n=n, seed=seed)
    options = dict(_setting("--option", text) for text in option or [])
    engine_options = dict(_setting("--engine-option", text) for text in engine_option or [])
    prompts = _prompts(prompt or [], file)
    from parallel_reason.llm import ParallelLLM

    console = Console(highlight=False)
    with Sink(console, json=json, out=out) as sink:
        with console.status(f"loading {model or 'the embedded Countdown model'} on {engine}"):
            llm = ParallelLLM(model, dialect=dialect, dialect_options=options, engine=engine, **engine_options)
        with llm:
            if len(prompts) * n == 1 and console.is_terminal and not json:
                traces = [asyncio.run(draw(llm.stream(prompts[0], sampling, limits), console))]
                sink.add(0, traces[0], drawn=True)
            else:
                traces = run_all(llm, prompts, sink, Console(stderr=True), sampling=sampling, limits=limits)
    failed = [trace.why for trace in traces if trace.status == "failed"]
    if failed:
        raise EngineError(f"{len(failed)} of {len(traces)} traces failed, the first because: {failed[0]}")


def _checked(kind: type[T], **given: Any) -> T:
    """A record of settings, those that were not given at their defaults; a wrong one is named as its option."""
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{option} {first['input']}: {first['msg'].lower()}") from None


def _setting(flag: str, text: str) -> tuple[str, Any]:
    """``name=value``; a whole number becomes one."""
    name, equals, value = text.partition("=")
    if not equals:
        example = "join_on=first" if flag == "--option" else "context=4096"
        raise InputError(f"{flag} {text}: write it as name=value, such as {example}")
    return name, int(value) if value.isdecimal() else value


def _prompts(given: list[str], file: Path | None) -> list[str]:
    """Prompts from the arguments, a file, or a pipe."""
    if given and file:
        raise InputError("give prompts as arguments or by --file, not both")
    if given:
        return given
    if file is None and sys.stdin.isatty():
        raise InputError("no prompt: give one as an argument, by --file, or through a pipe")
    try:
        text = sys.stdin.read() if file in (None, Path("-")) else Path(str(file)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file or 'standard input'}: {error}") from None
    prompts = [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise InputError(f"{file or 'standard input'} has no prompt")
    return prompts
