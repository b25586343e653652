"""A task by its name."""

from pathlib import Path

from parallel_reason.errors import InputError
from parallel_reason.tasks.countdown.task import Countdown
from parallel_reason.tasks.gym import GymTask
from parallel_reason.tasks.hub import SETS, HubTask
from parallel_reason.tasks.jsonl import GRADING, JsonlTask
from parallel_reason.tasks.task import Task

NAMES = (
    "countdown, countdown:3 to countdown:6, jsonl:TEST.jsonl, jsonl:TRAIN.jsonl:TEST.jsonl, aime:TEST.jsonl, "
    f"choice:TEST.jsonl, reasoning_gym:DATASET, and from the Hub {', '.join(SETS)}"
)


def find(name: str) -> Task:
    """The task of a name, one of `NAMES`.

    Raises:
        InputError: there is no such task.
    """
    kind, *options = name.split(":")
    if kind == "countdown" and options in ([], ["3"], ["4"], ["5"], ["6"]):
        return Countdown(*map(int, options))
    if kind in GRADING and len(options) in (1, 2) and all(options):
        *train, test = map(Path, options)
        return JsonlTask(kind, test, *train)
    if kind == "reasoning_gym" and len(options) == 1:
        return GymTask(*options)
    if kind in SETS and not options:
        return HubTask(kind)
    raise InputError(f"there is no task {name!r}; there is {NAMES}")
