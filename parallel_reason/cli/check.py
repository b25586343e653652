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
    """Run a model, score every sampled token by transformers in float32, and print the largest difference.

    Beside it stands that of plain decoding: one thread without forks, from the same prompts.

    Exit status 0 if it is exact, else 1. In float32: no log-prob differs by more than 1e-4 nats, and at temperature 0
    every token is the first choice of transformers. In 16 bits, on the same tokens: the mean difference is at most 2
    times, and the largest at most 4 times, that of transformers itself in 16 bits.

    The memory of the reference is quadratic in the tokens of a trace: lower --tokens if it runs out.

    Example: parallel-reason check --model ./my-model --prompt multiverse --engine torch
    """
    params = command.params
    sampling, limits = sampling_params(params), limits_of(params)
    call = make_call(read_prompts(prompt or _default(params), file, lines=lines, jsonl=jsonl), params)
    bar = PlainConsole(stderr=True)
    with load(params, call, limits) as llm:
        traces = run_batch(
            llm, call.prompts, TraceOutput(None), bar, name="running", sampling=sampling, limits=limits, **call.options
        )
        with status("decoding without forks"):
            plain = llm.with_dialect("none").generate(call.prompts, sampling, limits, **call.options)
        folder, tokenizer, precision = llm.engine.model, llm.tokenizer, llm.engine.precision
    check_none_failed([*traces, *plain])
    scored = _scored(folder, "float32", [*traces, *plain], bar)
    forked, alone = scored[: len(traces)], scored[len(traces) :]
    rounded = [] if dtype == "float32" else _scored(folder, dtype, traces, bar)
    _report(traces, forked, tokenizer)
    PlainConsole(soft_wrap=True).print(f"engine {engine}: {precision}")
    if not _judge(dtype, forked, alone, rounded, greedy=temperature == 0):
        raise typer.Exit(1)


def _default(params: dict[str, Any]) -> list[str]:
    """The prompt if none is given; empty if there is no such prompt."""
    if params["file"] or params["lines"] or params["jsonl"]:
        return []
    if params["template"]:
        return [load_template(params["template"]).example]
    return [EXAMPLE] if is_embedded(params) else []


def _scored(folder: str, dtype: str, traces: Sequence[Trace], bar: PlainConsole) -> list["Comparison"]:
    """Traces beside transformers in a dtype."""
    from parallel_reason.exactness import compare, load_reference

    with status(f"loading transformers in {dtype}"):
        reference = load_reference(folder, dtype)
    scored = []
    with counting(bar, f"scoring in {dtype}", len(traces)) as advance:
        for trace in traces:
            scored.append(compare(reference, trace))
            advance()
    return scored


def _report(traces: Sequence[Trace], compared: Sequence["Comparison"], tokenizer: Any) -> None:
    """Print what was compared, and where the difference is largest."""
    console = PlainConsole(soft_wrap=True)
    forks = sum(trace.ledger.forks for trace in traces)
    count = sum(len(one.ids) for one in compared)
    console.print(f"{count} sampled tokens in {len(traces)} traces with {forks} forks")
    if not forks:
        console.print("no fork: only plain decoding was compared; give a prompt that makes the model fork")
    if count:
        console.print(_worst(traces, compared, tokenizer))


def _judge(
    dtype: str,
    forked: Sequence["Comparison"],
    alone: Sequence["Comparison"],
    rounded: Sequence["Comparison"],
    *,
    greedy: bool,
) -> bool:
    """Print the differences; whether the engine is exact.

    Args:
        forked, alone: traces in the dialect, and of plain decoding, beside transformers in float32.
        rounded: the former beside transformers in ``dtype``, if that has 16 bits.
    """
    from parallel_reason.exactness import BOUND, LARGEST, MEAN, Difference

    console = PlainConsole(soft_wrap=True)
    expected = [one.expected for one in forked]
    threads = Difference.of([one.reported for one in forked], expected)
    plain = Difference.of([one.reported for one in alone], [one.expected for one in alone])
    rounding = Difference.of([one.expected for one in rounded], expected[: len(rounded)])
    rows = [("the engine", threads), (f"transformers in {dtype}", rounding), ("the engine, without forks", plain)]
    console.print("differences from transformers in float32, in nats:")
    for name, row in rows:
        if row.tokens:
            console.print(f"  {name:25} largest {row.largest:.1e}, mean {row.mean:.1e}, over {row.tokens} tokens")
    if dtype != "float32":
        exact = threads.is_rounding(rounding)
        bound = f"{MEAN:g} times the mean and {LARGEST:g} times the largest of transformers in {dtype}"
    else:
        same = not greedy or all((one.best == one.ids).all() for one in forked)
        if not same:
            console.print("a greedy token is not the first choice of transformers")
        exact = same and threads.largest <= BOUND
        bound = f"{BOUND:g} nats in float32"
    console.print(f"{'exact' if exact else 'NOT exact'}: the bound is {bound}")
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
