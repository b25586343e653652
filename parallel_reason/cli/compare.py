"""``parallel-reason compare``: two runs on the same problems."""

from pathlib import Path
from typing import Annotated

import typer

from parallel_reason.cli.console import PlainConsole, print_note
from parallel_reason.cli.figures import comparison_table, settings_line, verdict_of
from parallel_reason.errors import InputError

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, as eval writes it.")]


def compare(
    first: Run,
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another one, which is compared with it.")],
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap over problems.")] = 0,
) -> None:
    """Compare two runs problem by problem: accuracy and cost, whether the difference is noise, and what would tell.

    Give the sequential run first: the share of problems that cost more is then that of problems slower than sequential.

    For example: parallel-reason compare runs/countdown-none runs/countdown-parallel
    """
    from parallel_reason import evaluation

    runs = [evaluation.read_run(path) for path in (first, second)]
    (one, samples, notes), (other, others, other_notes) = runs
    if one.task != other.task:
        raise InputError(f"{first} is of task {one.task} and {second} of {other.task}: compare runs of one task")
    for note in (*notes, *other_notes):
        print_note(note)
    found = evaluation.compare(samples, others, seed=seed)
    console = PlainConsole(soft_wrap=True)
    if json:
        console.print(found.model_dump_json(indent=2))
        return
    for name, settings in (("first", one), ("second", other)):
        console.print(f"{name:7} {settings_line(settings)}")
    console.print()
    console.print(comparison_table(found, ("first", "second")))
    console.print(verdict_of(found))
    if found.left_out:
        print_note(f"{found.left_out} problems are in one of the runs only, and are left out")
