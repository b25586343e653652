"""The commands together, and how an error reaches a person: one line, and a non-zero exit status."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from parallel_reason import __version__
from parallel_reason.cli.check import check
from parallel_reason.cli.demo import demo
from parallel_reason.cli.doctor import doctor
from parallel_reason.cli.generate import generate
from parallel_reason.cli.validate import validate
from parallel_reason.errors import ParallelReasonError

INTERRUPTED = 130

app = typer.Typer(
    name="parallel-reason",
    help="Run language models that think in several threads at once.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)
app.command()(generate)
app.command()(demo)
app.command()(check)
app.command()(validate)
app.command()(doctor)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"parallel-reason {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command. Exit status 0: done; 1: an error, named in one line; 2: unusable arguments; 130: Ctrl-C."""
    errors = Console(stderr=True, highlight=False)
    try:
        app()
    except ParallelReasonError as error:
        errors.print(f"[red]error:[/red] {error}", soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns Ctrl-C into this status
            errors.print("stopped; what was finished is kept")
        raise
