"""``parallel-reason validate``: whether training text has the form of a dialect, and where it has not."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from parallel_reason.cli.output import progress_bar
from parallel_reason.dialects import bind
from parallel_reason.engines import EMBEDDED
from parallel_reason.engines.folder import load_tokenizer
from parallel_reason.errors import InputError

AROUND = 40  # characters shown on both sides of what is wrong


def validate(
    file: Annotated[Path, typer.Argument(help="JSONL, one text a line.")],
    dialect: Annotated[str, typer.Option(help="The grammar of the texts.")],
    model: Annotated[
        str | None, typer.Option(help="The folder or Hub id of the tokenizer. Default: the embedded Countdown model.")
    ] = None,
    field: Annotated[str, typer.Option(help="Where a line has its text, what follows the prompt.")] = "text",
) -> None:
    """Read every text as a run of the controller would have written it; name what is wrong, and at which token.

    Exit status 0 if all are well-formed, else 1.

    Example: parallel-reason validate train.jsonl --dialect parallel_r1 --model ./my-model --field output
    """
    from parallel_reason.flat import problems

    console = Console(highlight=False, soft_wrap=True)
    try:
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    tokenizer = load_tokenizer(model or str(EMBEDDED), "give a model folder or Hub id with --model")
    grammar = bind(dialect, tokenizer)
    good = 0
    with progress_bar(console) as progress:
        for number, line in enumerate(progress.track(lines, description="reading"), 1):
            text = _text(line, field)
            if text is None:
                console.print(f"line {number}: no JSON object with a text under {field!r}", markup=False)
                continue
            end = tokenizer.eos_token or ""
            ids = tokenizer.encode(text if text.endswith(end) else text + end, add_special_tokens=False)
            found = problems(grammar, tokenizer, [], ids)
            good += not found
            if found:
                before, after = tokenizer.decode(ids[: found[0].at]), tokenizer.decode(ids[found[0].at :])
                place = f"{before[-AROUND:]}>>>{after[:AROUND]}"
                console.print(f"line {number}, token {found[0].at}: {found[0].what}: {place!r}", markup=False)
    console.print(f"{good} of {len(lines)} texts are well-formed {dialect}")
    if good < len(lines):
        raise typer.Exit(1)


def _text(line: str, field: str) -> str | None:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError:
        return None
    text = row.get(field) if isinstance(row, dict) else None
    return text if isinstance(text, str) else None
