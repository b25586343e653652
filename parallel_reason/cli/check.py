"""``parallel-reason check``: whether an engine and plain transformers agree on a user's own model."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallel_reason.cli import options as of
from parallel_reason.cli.batch import check_none_failed, run_batch
from parallel_reason.cli.chat import is_embedded, make_call
from parallel_reason.cli.console import PlainConsole, counting, one_line, status
from parallel_reason.cli.loading import load
from parallel_reason.cli.output import TraceOutput
from parallel_reason.cli.prompts import read_prompts
from parallel_reason.cli.settings import limits_of, sampling_params
from parallel_reason.prompts import load as load_template
from parallel_reason.trace import Trace

if TYPE_CHECKING:
    from parallel_reason.exactness import Comparison

EXAMPLE = "22,26,31,53=27"
NOISE = 2.0  # differences of plain decoding, as often as this, are no fault of forks and joins in 16 bits


def check(
    command: typer.Context,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            help="Prompts that make the model fork. Default: the example of --prompt, or a Countdown problem.",
            metavar="PROMPT",
        ),
    ] = None,
    file: of.File = None,
    lines: of.Lines = False,
    jsonl: of.JsonLines = False,
    template: of.Template = None,
    chat: of.Chat = None,
    system: of.System = None,
    reply: of.Reply = None,
    chat_option: of.ChatOption = None,
    model: of.Model = None,
    dialect: of.Dialect = None,
    option: of.Option = None,
    engine: Annotated[str, typer.Option(help="What is checked: vllm or torch.", rich_help_panel="Model")] = "vllm",
    dtype: Annotated[
        of.DtypeName, typer.Option(help="Of weights and KV, in both.", rich_help_panel="Model")
    ] = "float32",
    engine_option: of.EngineOption = None,
    n: of.N = 4,
    temperature: of.Temperature = 1.0,
    seed: of.Seed = 0,
    tokens: of.Tokens = 2000,
    depth: of.Depth = 3,
) -> None:
    """Run a model, score every sampled token by a plain transformers forward, and print the largest difference.

    Beside it stands the yardstick: the same of plain decoding, one thread without forks, from the same prompts.

    Exit status 0 if it is exact, else 1. In float32 that is: no log-prob differs by more than 1e-4 nats and, at
    temperature 0, every token is the first choice of transformers. In 16 bits it is: neither the largest nor the mean
    difference is more than twice that of plain decoding.

    The memory of the reference is quadratic in the tokens of a trace: lower --tokens if it runs out.

    Example: parallel-reason check --model ./my-model --prompt multiverse --engine torch
    """
    params = command.params
    sampling, limits = sampling_params(params), limits_of(params)
    call = make_call(read_prompts(prompt or _default(params), file, lines=lines, jsonl=jsonl), params)
    from parallel_reason.exactness import load_reference

    bar = PlainConsole(stderr=True)
    with load(params, call, limits) as llm:
        traces = run_batch(
            llm, call.prompts, TraceOutput(None), bar, name="running", sampling=sampling, limits=limits, **call.options
        )
        with status("decoding without forks"):
            plain = llm.with_dialect("none").generate(call.prompts, sampling, limits, **call.options)
        folder, tokenizer = llm.engine.model, llm.tokenizer
    check_none_failed([*traces, *plain])
    with status("loading transformers"):
        reference = load_reference(folder, dtype)
    forked, yardstick = _compared(reference, traces, bar, "scoring"), _compared(reference, plain, bar, "scoring plain")
    exact = _report(traces, forked, yardstick, tokenizer, dtype, greedy=temperature == 0)
    if not exact:
        raise typer.Exit(1)


def _default(params: dict[str, Any]) -> list[str]:
    """The prompt if none is given; empty if there is no such prompt."""
    if params["file"] or params["lines"] or params["jsonl"]:
        return []
    if params["template"]:
        return [load_template(params["template"]).example]
    return [EXAMPLE] if is_embedded(params) else []


def _compared(reference: Any, traces: Sequence[Trace], bar: PlainConsole, name: str) -> list["Comparison"]:
    from parallel_reason.exactness import compare

    found = []
    with counting(bar, name, len(traces)) as advance:
        for trace in traces:
            found.append(compare(reference, trace))
            advance()
    return found


def _report(
    traces: Sequence[Trace],
    forked: Sequence["Comparison"],
    plain: Sequence["Comparison"],
    tokenizer: Any,
    dtype: str,
    *,
    greedy: bool,
) -> bool:
    """Print the differences, and where the largest lies; whether the engine is exact."""
    from parallel_reason.exactness import BOUND, Difference

    console = PlainConsole(soft_wrap=True)
    threads, alone = Difference.of(forked), Difference.of(plain)
    forks = sum(trace.ledger.forks for trace in traces)
    console.print(f"{threads.tokens} sampled tokens in {len(traces)} traces with {forks} forks")
    if not forks:
        console.print("no fork: only plain decoding was compared; give a prompt that makes the model fork")
    if threads.tokens:
        console.print(_worst(traces, forked, tokenizer))
    console.print(f"difference in nats: {threads}; of plain decoding: {alone} ({alone.tokens} tokens)")
    if dtype == "float32":
        same = not greedy or all((one.best == one.ids).all() for one in forked)
        if not same:
            console.print("a greedy token is not the first choice of transformers")
        exact = same and threads.largest <= BOUND
        console.print(f"{'exact' if exact else 'NOT exact'}: the bound is {BOUND:g} nats in float32")
        return exact
    exact = threads.within(alone, NOISE)
    said = "as exact as plain decoding" if exact else "NOT as exact as plain decoding"
    console.print(f"{said} in {dtype}: the bound is {NOISE:g} times its difference")
    return exact


def _worst(traces: Sequence[Trace], compared: Sequence["Comparison"], tokenizer: Any) -> str:
    """Where the largest difference lies."""
    number = max(range(len(traces)), key=lambda k: math.inf if math.isnan(compared[k].largest) else compared[k].largest)
    worst, trace = compared[number], traces[number]
    at = worst.worst
    token = tokenizer.convert_ids_to_tokens(int(worst.ids[at]))
    return (
        f"largest difference {worst.largest:.1e} nats: prompt {trace.prompt_index}, sample {trace.sample}, "
        f"thread {trace.threads[worst.thread[at]].label}, sampled token {worst.place[at]} {one_line(repr(token))}: "
        f"engine {worst.reported[at]:.6f}, transformers {worst.expected[at]:.6f}"
    )
