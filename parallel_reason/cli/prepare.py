"""``parallel-reason prepare``: a model made ready for a dialect, in a new folder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from parallel_reason.cli.console import PlainConsole, one_line, status
from parallel_reason.cli.settings import settings

OPTION = "--dialect-option"


def prepare(
    model: Annotated[str, typer.Option(help="A model folder, a Hub id, or a GGUF file.")],
    dialect: Annotated[str, typer.Option(help="The grammar in which the model is to fork and join.")],
    out: Annotated[Path, typer.Option(help="The folder to write: a new one, or an empty one.")],
    option: Annotated[
        list[str] | None,
        typer.Option(OPTION, "-o", help="An option of the dialect as name=value, a TOML value: paths=4."),
    ] = None,
    tags: Annotated[
        Literal["tokens", "text"],
        typer.Option(help="Whether the tags become tokens, or stay text that the tokenizer splits."),
    ] = "tokens",
    check: Annotated[
        bool, typer.Option(help="Load the result in float32 and compare the torch engine with transformers.")
    ] = True,
) -> None:
    """Add a dialect's control tags to a model and its tokenizer, and write it to a new folder.

    Each new row of the embeddings begins as the mean of the rows of the tag's words. The folder says which dialect it
    is for, and other commands take that from it. If anything fails, no folder is left.

    Example: parallel-reason prepare --model Qwen/Qwen3-0.6B --dialect multiverse --out ./my-model
    """
    options = settings(OPTION, option, reserved=("name", "tokenizer"))
    from parallel_reason.prepare import prepare as prepare_model

    console = PlainConsole(soft_wrap=True)
    with status(f"preparing {model} for {dialect}"):
        done = prepare_model(model, dialect, out, dialect_options=options, tags=tags, check=check)
    for tag, token in done.tags.added.items():
        console.print(f"added {one_line(tag)} as token {token}, from the rows of tokens {done.tags.words[tag]}")
    for tag, token in done.tags.kept.items():
        console.print(f"kept {one_line(tag)}, token {token}")
    if tags == "text":
        console.print(f"the tags of {dialect} stay text; the vocabulary is as it was")
    console.print(f"embeddings: {done.rows_before} rows before, {done.rows} now")
    console.print(f"ends of text: tokens {done.eos_ids}")
    if done.checked:
        console.print(f"checked: {done.checked.tokens} sampled tokens, {done.checked.largest:.1e} nats off at most")
    console.print(f"written to {one_line(str(done.folder))}, for dialect {dialect}")
