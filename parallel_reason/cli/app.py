"""The commands together, and how an error reaches the user: one line, and a non-zero exit status."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from parallel_reason import __version__
from parallel_reason.cli.check import check
from parallel_reason.cli.compare import compare
from parallel_reason.cli.console import INTERRUPTED, STOPPED, PlainConsole, print_error
from parallel_reason.cli.demo import demo
from parallel_reason.cli.doctor import doctor
from parallel_reason.cli.evaluate import evaluate
from parallel_reason.cli.export import export
from parallel_reason.cli.generate import generate
from parallel_reason.cli.prepare import prepare
from parallel_reason.cli.report import report
from parallel_reason.cli.show import show
from parallel_reason.cli.show_prompts import show_prompts
from parallel_reason.cli.validate import validate
from parallel_reason.errors import InputError, ParallelReasonError

app = typer.Typer(
    name="parallel-reason",
    help="Run language models that think in several threads at once.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)
app.command()(generate)
app.command()(demo)
app.command()(prepare)
app.command()(check)
app.command()(validate)
app.command("eval")(evaluate)
app.command()(compare)
app.command()(show)
app.command()(report)
app.command()(export)
app.command("prompts")(show_prompts)
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command: ``arguments``, or those of the process.

    Exit status 0: done; 1: an error, named in one line, or a closed pipe; 2: unusable arguments; 130: Ctrl-C.
    """
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        _check_arguments(given)
        app(given)
    except ParallelReasonError as error:
        print_error(str(error))
        sys.exit(1)
    except OSError as error:  # such as a full disk under standard output
        print_error(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
        _discard_output()
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns Ctrl-C into this status
            PlainConsole(stderr=True).print(STOPPED)
        raise


def _discard_output() -> None:
    """Send what standard output still holds nowhere: it would be written again, and fail again, at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _check_arguments(arguments: list[str]) -> None:
    """Refuse bytes that are not UTF-8, which Python decodes to lone surrogates."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            wrong = ord(argument[error.start]) & 0xFF
            shown = argument.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise InputError(f"argument '{shown:.60}' is not UTF-8: byte 0x{wrong:02x}") from None
