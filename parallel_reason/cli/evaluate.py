"""``parallel-reason eval``: a task, run into a folder and counted."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from parallel_reason.cli import options as of
from parallel_reason.cli.chat import OF_CALL
from parallel_reason.cli.console import NOTE_S, PlainConsole, print_note, status
from parallel_reason.cli.figures import figures_table, print_plan
from parallel_reason.cli.loading import ctrl_c_ends_at_once
from parallel_reason.cli.settings import SAMPLING_FLAGS, checked, engine_options, limits_of, settings
from parallel_reason.dialects import find as find_dialect
from parallel_reason.errors import EngineError, InputError
from parallel_reason.limits import Limits
from parallel_reason.prompts import load as load_prompt
from parallel_reason.runtime.chat import ChatOptions
from parallel_reason.sampling import SamplingParams
from parallel_reason.tasks import find
from parallel_reason.tasks.countdown.task import Countdown

if TYPE_CHECKING:
    from parallel_reason.evaluation import Plan, RunFolder, Sample
    from parallel_reason.llm import ParallelLLM

TaskName = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="countdown, aime24, aime25, aime26, amc23, math500, gpqa, reasoning_gym:DATASET; or a file, "
        "aime:FILE.jsonl, jsonl:FILE.jsonl or choice:FILE.jsonl, every line a JSON object with a 'problem' and its "
        "'answer'.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="The folder of the run, which goes on if it is there. Default: runs/TASK-MODEL-DIALECT."),
]
Problems = Annotated[
    str | None, typer.Option(metavar="COUNT|FIRST:LAST", help="The first 100, or numbers 20:40, counted from 0.")
]
Samples = Annotated[int | None, typer.Option("--samples", "-n", help="Traces of each problem.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Most traces in flight at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON, as they are in summary.json.")]
Prompt = Annotated[
    str, typer.Option(metavar="NAME", help="A template, a name or a file; none sends the problem alone.")
]
Chat = Annotated[bool, typer.Option("--chat", help="With --prompt none: send the problem as a message of a user.")]
Strategy = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:PARAMETERS]",
        help="Run a published method over paths of the model in place of its dialect: sc:n=16, esc, deepconf_online.",
    ),
]
Budget = Annotated[
    list[str] | None,
    typer.Option(
        "--budget", metavar="NAME=VALUE", help="Of each trace of a strategy: total_tokens=4096, critical_path=1024."
    ),
]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.", rich_help_panel="Sampling, as in vLLM")]


def evaluate(
    command: typer.Context,
    task: TaskName,
    out: Out = None,
    problems: Problems = None,
    samples: Samples = None,
    concurrency: Concurrency = 256,
    strategy: Strategy = None,
    budget: Budget = None,
    json: AsJson = False,
    prompt: Prompt = "published",
    chat: Chat = False,
    chat_option: of.ChatOption = None,
    model: of.Model = None,
    dialect: of.Dialect = None,
    option: of.Option = None,
    engine: of.Engine = "vllm",
    dtype: of.Dtype = None,
    engine_option: of.EngineOption = None,
    temperature: Temperature = None,
    top_p: of.TopP = None,
    top_k: of.TopK = None,
    min_p: of.MinP = None,
    presence_penalty: of.PresencePenalty = None,
    frequency_penalty: of.FrequencyPenalty = None,
    repetition_penalty: of.RepetitionPenalty = None,
    stop: of.Stop = None,
    max_tokens: of.MaxTokens = None,
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
    """Run the problems of a task into a folder, grade them, and print the figures with their intervals.

    Prompt, temperature, top-p and samples are by default as the authors of the dialect publish them, and are printed.
    The same command goes on with a run that was stopped, and runs no finished sample again. The folder has
    settings.json, traces.jsonl (whole traces), samples.jsonl (verdicts and counts) and summary.json.

    For example: parallel-reason eval countdown --problems 100

    parallel-reason eval aime25 --model ./npr-4b --samples 8 --out runs/npr

    parallel-reason eval reasoning_gym:chain_sum --model ./my-model --strategy sc:n=8 --problems 50
    """
    given = command.params
    check_early(given)
    with load(given) as llm:
        run(llm, given)


def check_early(given: Mapping[str, Any]) -> None:
    """Refuse what can be refused before an engine spends time on starting.

    Raises:
        InputError: naming what is wrong and the fix.
    """
    from parallel_reason.evaluation.plan import ALONE, PUBLISHED, problem_range
    from parallel_reason.strategies import find as find_strategy

    checked(SamplingParams, sampling_of(given), settings(of.SAMPLING, given["sampling"], reserved=SAMPLING_FLAGS))
    limits_of(given)
    problem_range(given["problems"])
    if given["dialect"] is not None:
        find_dialect(given["dialect"])
    if given["strategy"] is not None:
        find_strategy(given["strategy"])
    if given["prompt"] not in (ALONE, PUBLISHED):
        load_prompt(given["prompt"], dialect=given["dialect"])
    task = find(given["task"])
    if not isinstance(task, Countdown):  # whose problems are drawn
        task.test()
    if given["model"] is None and given["engine"] != "openai" and not isinstance(task, Countdown):
        raise InputError(f"the embedded model knows nothing of {task.name}: give a model with --model")


def sampling_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of sampling parameters that were given by options of their own."""
    named = {"n": given["samples"], **{name: given[name] for name in SAMPLING_FLAGS if name in given}}
    return {name: value for name, value in named.items() if value not in (None, [])}


def load(given: Mapping[str, Any]) -> "ParallelLLM":
    """The model, started."""
    of_dialect = settings(of.OPTIONS, given["option"], reserved=("name", "tokenizer"))
    of_engine = engine_options(given["engine_option"], given["dtype"])
    name = given["model"] or ("the model of the server" if given["engine"] == "openai" else "the embedded model")
    with ctrl_c_ends_at_once(), status(f"loading {name} on {given['engine']}"):
        from parallel_reason.llm import ParallelLLM

        return ParallelLLM(
            given["model"],
            dialect=given["dialect"] or ("none" if given["strategy"] else None),
            dialect_options=of_dialect,
            engine=given["engine"],
            traces_at_once=given["concurrency"],
            **of_engine,
        )


def run(llm: "ParallelLLM", given: Mapping[str, Any]) -> None:
    """Run and report."""
    from parallel_reason import evaluation

    variables = settings(of.CHAT_OPTIONS, given["chat_option"], reserved=OF_CALL)
    with status(f"reading the problems of {given['task']}"):
        plan = evaluation.make_plan(
            given["task"],
            llm.dialect.name,
            problems=given["problems"],
            sampling={**sampling_of(given), **settings(of.SAMPLING, given["sampling"], reserved=SAMPLING_FLAGS)},
            limits={name: given[name] for name in Limits.model_fields if given[name] is not None},
            prompt=given["prompt"],
            chat=ChatOptions(chat_template_kwargs=variables) if given["chat"] or variables else None,
            engine_options=engine_options(given["engine_option"], given["dtype"]),
            strategy=given["strategy"],
            budget=settings("--budget", given["budget"]),
        )
    out = given["out"] or default_folder(plan, llm)
    console = PlainConsole(stderr=given["json"], soft_wrap=True)
    print_plan(console, plan, llm, out)
    with _Shown(console, plan) as shown:
        found = evaluation.evaluate(
            llm,
            plan,
            out,
            concurrency=given["concurrency"],
            on_start=shown.begin,
            on_sample=shown.add,
            on_note=print_note,
        )
    if given["json"]:
        PlainConsole(soft_wrap=True).print(found.model_dump_json(indent=2))
    else:
        console.print(figures_table(found))
    if shown.failed:
        raise EngineError(
            f"{found.failed.hits} of {found.samples} samples failed, the first because: {shown.failed}; the same "
            "command runs them again"
        )


def default_folder(plan: "Plan", llm: "ParallelLLM") -> Path:
    """``runs/TASK-MODEL-DIALECT``, or the strategy in place of the dialect."""
    parts = [Path(plan.task.name).stem, Path(llm.engine.model).name, plan.strategy or llm.dialect.name]
    parts = [part.replace(":", "-").replace("/", "-") for part in parts]
    return Path("runs") / "-".join(parts)


class _Shown:
    """How far a run is, with the time that is left and the accuracy so far; notes where there is no terminal."""

    def __init__(self, console: PlainConsole, plan: "Plan") -> None:
        self._total = len(plan.problems) * plan.sampling.n
        self._done = self._new = self._right = 0
        self._begun = self._noted = time.monotonic()
        self.failed: str | None = None  # why the first sample failed that did
        self._terminal = console.is_terminal
        columns = (
            TextColumn("samples"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[said]}", markup=False),
        )  # fmt: skip
        self._progress = Progress(*columns, console=console, disable=not self._terminal, redirect_stdout=False)
        self._bar = self._progress.add_task("samples", total=self._total, said="")

    def __enter__(self) -> "_Shown":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, folder: "RunFolder") -> None:
        """Count what an earlier attempt left."""
        self._done = len(folder.samples)
        self._right = sum(sample.correct for sample in folder.samples.values())
        if self._done:
            print_note(f"{folder.path} has {self._done} of {self._total} samples; the rest is run")
        self._begun = self._noted = time.monotonic()
        self._progress.reset(self._bar, completed=self._done)

    def add(self, sample: "Sample") -> None:
        """Count a sample."""
        self._done += 1
        self._new += 1
        self._right += sample.correct
        said = f"{self._right / self._done:.1%} right"
        if sample.failed:
            self.failed = self.failed or sample.stop_reason
        self._progress.update(self._bar, advance=1, said=said)
        now = time.monotonic()
        if not self._terminal and now - self._noted >= NOTE_S:
            self._noted = now
            left = (now - self._begun) / self._new * (self._total - self._done)
            print_note(f"{self._done} of {self._total} samples, {said}, {left:.0f} s left")
