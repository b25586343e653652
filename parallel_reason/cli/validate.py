"""``parallel-reason validate``: whether training text has the form of a dialect, and where it has not."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from parallel_reason.cli.console import PlainConsole, one_line, progress_bar
from parallel_reason.cli.prompts import read_lines
from parallel_reason.cli.settings import settings
from parallel_reason.dialects import bind
from parallel_reason.engines import EMBEDDED
from parallel_reason.engines.models import load_tokenizer
from parallel_reason.errors import InputError

AROUND = 40  # characters shown on both sides of what is wrong


def validate(
    file: Annotated[Path, typer.Argument(help="A JSONL file, one text a line; - is standard input.")],
    dialect: Annotated[str, typer.Option(help="The grammar of the texts.")],
    model: Annotated[
        str | None, typer.Option(help="The folder or Hub id of the tokenizer. Default: the embedded Countdown model.")
    ] = None,
    field: Annotated[str, typer.Option(help="The key of the text in a line: all that follows the prompt.")] = "text",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="An option of the dialect: name=value, as TOML.")
    ] = None,
) -> None:
    """Read every text as a run would have written it; print all that is wrong, and at which token.

    Of each text, broken tags come first, then what cannot be read because of them. An end of text is added where a text
    has none, as training does. Exit status 0 if all are well-formed, else 1.

    Example: parallel-reason validate train.jsonl --dialect parallel_r1 -o view=seen --model ./my-model --field output
    """
    from parallel_reason.runtime.replay import problems

    console = PlainConsole(soft_wrap=True)
    lines = [line for line in read_lines(file, str(file)) if line.strip()]
    if not lines:
        raise InputError(f"{file} has no text: give a JSONL file with one text a line")
    tokenizer = load_tokenizer(model or str(EMBEDDED), "give a model folder or Hub id with --model")
    grammar = bind(dialect, tokenizer, **settings("--option", option))
    good = 0
    with progress_bar(console) as progress:
        for number, line in enumerate(progress.track(lines, description="reading"), 1):
            text = _text(line, field)
            if text is None:
                console.print(f"line {number}: no JSON object with a text under {field!r}")
                continue
            end = tokenizer.eos_token or ""
            ids = tokenizer.encode(text if text.endswith(end) else text + end, add_special_tokens=False)
            found = problems(grammar, tokenizer, [], ids)
            good += not found
            for problem in found:
                before, after = tokenizer.decode(ids[: problem.at]), tokenizer.decode(ids[problem.at :])
                place = f"{before[-AROUND:]}>>>{after[:AROUND]}"
                console.print(one_line(f"line {number}, token {problem.at}: {problem.what}: {place!r}"))
    console.print(f"{good} of {len(lines)} texts are well-formed {dialect}")
    if good < len(lines):
        raise typer.Exit(1)


def _text(line: str, field: str) -> str | None:
    """The text of a line; None if there is none, or it holds a lone surrogate, which no tokenizer takes."""
    try:
        row: Any = json.loads(line)
    except ValueError:
        return None
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str) or any("\ud800" <= character <= "\udfff" for character in text):
        return None
    return text
