"""`Plan`: which problems of a task are run, and how; what its caller leaves open is as published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parallel_reason import prompts
from parallel_reason.errors import InputError
from parallel_reason.evaluation.published import Defaults, defaults
from parallel_reason.evaluation.settings import RunSettings, digest
from parallel_reason.evaluation.work import shape_of
from parallel_reason.limits import Limits
from parallel_reason.runtime.chat import ChatOptions
from parallel_reason.runtime.session import Session
from parallel_reason.runtime.versions import versions
from parallel_reason.sampling import SamplingParams
from parallel_reason.strategies import Budget
from parallel_reason.strategies import find as find_strategy
from parallel_reason.strategies import program as program_of
from parallel_reason.strategies.program import StrategyProgram
from parallel_reason.tasks import Task, TaskProblem, find
from parallel_reason.tasks.countdown.task import Countdown

SECRET = {"api_key", "hf_token"}  # options of engines that are written nowhere
PUBLISHED, ALONE = "published", "none"  # of a prompt: the one that is published for the dialect, and the problem alone


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        problems: of the task's test set, the first of them being number ``first_problem``; no two have one key.
        sampling: ``n`` is the samples of each problem.
        prompt, chat: as `Session.run` takes them.
        engine_options: with which the engine was started, for the record.
        published: where what the caller left open comes from, and what it is.
        strategy: name and parameters of the program that runs in place of a dialect, see
            `parallel_reason.strategies.find`; ``budget`` is what each of its traces may spend.
        twice: how many problems of the set were there before, and were left out.
    """

    task: Task
    problems: Sequence[TaskProblem]
    sampling: SamplingParams
    limits: Limits
    prompt: str | None = None
    chat: ChatOptions | None = None
    first_problem: int = 0
    engine_options: dict[str, Any] = field(default_factory=dict)
    published: Defaults | None = None
    strategy: str | None = None
    budget: Budget | None = None
    twice: int = 0

    @property
    def program(self) -> StrategyProgram | None:
        """What runs a strategy, whose answers count as the task's votes do."""
        if self.strategy is None:
            return None
        return program_of(find_strategy(self.strategy), budget=self.budget, answer_of=self.task.vote)

    def settings(self, session: Session) -> RunSettings:
        """All that decides what the samples are, over a session."""
        template = "" if self.prompt is None else prompts.load(self.prompt).model_dump_json()
        return RunSettings(
            task=self.task.name,
            first_problem=self.first_problem,
            problems=len(self.problems),
            content=digest(self.problems, template),
            engine_options={name: value for name, value in self.engine_options.items() if name not in SECRET},
            strategy=self.strategy,
            budget=self.budget,
            prompt=self.prompt,
            chat=self.chat,
            shape=shape_of(session.engine.model),
            versions=versions(),
            **session.circumstances(self.sampling, self.limits),
        )


def make_plan(
    task: str | Task,
    dialect: str,
    *,
    problems: int | str | None = None,
    sampling: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    prompt: str = PUBLISHED,
    chat: ChatOptions | None = None,
    engine_options: Mapping[str, Any] | None = None,
    strategy: str | None = None,
    budget: Mapping[str, Any] | None = None,
) -> Plan:
    """A plan for a dialect.

    Args:
        task: or its name, see `parallel_reason.tasks.find`.
        problems: the first so many, or ``FIRST:LAST``, counted from 0 and without the last; by default as published.
        sampling, limits: fields that are not to be as published; ``n`` is the samples of each problem.
        prompt: a name, the path of a file, `PUBLISHED` or `ALONE`.
        strategy, budget: see `Plan`; a problem is then sampled once, unless ``n`` says otherwise.

    Raises:
        InputError: naming what cannot be used.
    """
    task = find(task) if isinstance(task, str) else task
    if strategy is not None:
        find_strategy(strategy)
    elif budget:
        raise InputError("a budget is of a strategy: give one, or bound traces by limits")
    published = defaults(task, dialect, 0 if isinstance(task, Countdown) else len(task.test()))
    name = published.prompt if prompt == PUBLISHED else None if prompt == ALONE else prompt
    if name is not None:
        prompts.load(name, dialect=dialect)
    first, last = problem_range(published.problems if problems is None else problems)
    chosen, twice = distinct(task.test(last)[first:])
    if not chosen:
        raise InputError(f"problems {problems}: there is none of {task.name} from number {first} on")
    base = {"temperature": published.temperature, "top_p": published.top_p, "top_k": published.top_k}
    return Plan(
        task,
        chosen,
        SamplingParams.from_caller(
            "sampling", {**base, "n": 1 if strategy else published.samples, "seed": 0, **(sampling or {})}
        ),
        Limits.from_caller("limits", {"tokens_per_thread": published.tokens_per_thread, **(limits or {})}),
        name,
        chat,
        first,
        dict(engine_options or {}),
        published,
        strategy,
        Budget.from_caller("budget", dict(budget)) if budget else None,
        twice,
    )


def problem_range(given: int | str | None) -> tuple[int, int | None]:
    """The first problem and the one after the last, from ``100``, ``20:40``, ``20:`` or None for all.

    Raises:
        InputError: it is something else.
    """
    first, _, last = ("", "", "") if given is None else str(given).rpartition(":")
    numbers = [first or "0", last or "0"]
    if not all(number.isascii() and number.isdecimal() and len(number) < 10 for number in numbers):
        raise InputError(f"problems {given}: give a count, such as 100, or a range, such as 20:40")
    start, stop = int(numbers[0]), int(last) if last else None
    if stop is not None and stop <= start:
        raise InputError(f"problems {given}: there is none in it; give a count, such as 100, or a range, such as 20:40")
    return start, stop


def distinct(problems: Sequence[TaskProblem]) -> tuple[list[TaskProblem], int]:
    """The problems, each once, and how many were there before.

    Raises:
        InputError: a problem is there with two answers.
    """
    kept: dict[str, TaskProblem] = {}
    for problem in problems:
        before = kept.setdefault(problem.key, problem)
        if before.reference != problem.reference:
            raise InputError(
                f"the problem {problem.key!r:.60} is there twice, with the answers {before.reference!r:.30} and "
                f"{problem.reference!r:.30}: leave one out"
            )
    return list(kept.values()), len(problems) - len(kept)
