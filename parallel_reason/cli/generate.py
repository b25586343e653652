"""``parallel-reason generate``: prompts in, traces out."""

import asyncio
from typing import TYPE_CHECKING, Any

import typer

from parallel_reason.cli import options as of
from parallel_reason.cli.batch import check_none_failed, run_batch, run_one
from parallel_reason.cli.chat import Call, make_call
from parallel_reason.cli.console import PlainConsole
from parallel_reason.cli.loading import load
from parallel_reason.cli.output import TraceOutput
from parallel_reason.cli.prompts import read_prompts
from parallel_reason.cli.settings import limits_of, sampling_params
from parallel_reason.cli.tree import draw
from parallel_reason.limits import Limits
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace import Trace

if TYPE_CHECKING:
    from parallel_reason.llm import ParallelLLM


def generate(
    command: typer.Context,
    prompt: of.GivenPrompts = None,
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
    engine: of.Engine = "vllm",
    dtype: of.Dtype = None,
    engine_option: of.EngineOption = None,
    json: of.Json = False,
    out: of.Out = None,
    transcript: of.Transcript = False,
    temperature: of.Temperature = 0.0,
    top_p: of.TopP = None,
    top_k: of.TopK = None,
    min_p: of.MinP = None,
    presence_penalty: of.PresencePenalty = None,
    frequency_penalty: of.FrequencyPenalty = None,
    repetition_penalty: of.RepetitionPenalty = None,
    stop: of.Stop = None,
    max_tokens: of.MaxTokens = None,
    n: of.N = 1,
    seed: of.Seed = None,
    logprobs: of.Logprobs = None,
    sampling: of.Sampling = None,
    threads: of.Threads = None,
    children: of.Children = None,
    forks: of.Forks = None,
    depth: of.Depth = None,
    tokens_per_thread: of.TokensPerThread = None,
    tokens: of.Tokens = None,
    critical_path_tokens: of.CriticalPathTokens = None,
    deadline_s: of.DeadlineS = None,
    context: of.Context = None,
) -> None:
    """Run prompts and print their answers; on a terminal, draw the threads while they run.

    Of several traces, the line of each begins with the numbers of its prompt and of its sample, such as 3.0.
    Exit status 0 if every trace ran and was written, else 1.

    For example: parallel-reason generate 22,26,31,53=27

    parallel-reason generate --chat "Name three rivers." --model ./my-model --dialect none

    parallel-reason generate --file problems.jsonl --prompt multiverse --model ./my-model --out traces.jsonl
    """
    params = command.params
    limits, settings = limits_of(params), sampling_params(params, sampling)
    call = make_call(read_prompts(prompt or [], file, lines=lines, jsonl=jsonl), params)
    console = PlainConsole()
    many = len(call.prompts) * n > 1
    with (
        TraceOutput(console, json=json, out=out, many=many, titles=call.titles) as output,
        load(params, call, limits) as llm,
    ):
        output.verdict = call.countdown.verdict if call.countdown else None
        if transcript:
            output.transcript = lambda trace: trace.transcript(llm.tokenizer)
        traces = _run(llm, call, output, console, sampling=settings, limits=limits)
    check_none_failed(traces)
    if not output.complete:
        raise typer.Exit(1)


def _run(
    llm: "ParallelLLM",
    call: Call,
    output: TraceOutput,
    console: PlainConsole,
    *,
    sampling: SamplingParams,
    limits: Limits,
) -> list[Trace]:
    """Run the call in the way that suits its size and where it is printed."""
    if output.many or output.json or (output.transcript and not console.is_terminal):
        bar = console if console.is_terminal else PlainConsole(stderr=True)
        return run_batch(llm, call.prompts, output, bar, sampling=sampling, limits=limits, **call.options)
    settings: dict[str, Any] = {**call.options, "sampling": sampling, "limits": limits}
    if "tasks" in settings:
        (settings["task"],) = settings.pop("tasks")
    if not console.is_terminal:
        return run_one(llm, call.prompts[0], output, **settings)
    trace = asyncio.run(draw(llm.stream(call.prompts[0], **settings), console, call.titles[0]))
    output.add(trace, shown=True)
    return [trace]
