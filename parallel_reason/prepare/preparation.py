"""`prepare`: from a model to a folder that is ready for a dialect, all at once or not at all."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from parallel_reason.dialects import bind, find, options_of
from parallel_reason.errors import InputError, ModelError
from parallel_reason.prepare.ends_of_text import write_ends_of_text
from parallel_reason.prepare.rows import write_rows
from parallel_reason.prepare.source import Source
from parallel_reason.prepare.verify import Checked, verify
from parallel_reason.prepare.vocabulary import TagTokens, add_tags
from parallel_reason.prepared import KEY, AddedToken, PreparedFor, read_prepared

# Dialects whose released checkpoints write their tags as ordinary text; the others added tokens for theirs.
WRITTEN_AS_TEXT = ("apr", "dc_cot")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was done.

    Attributes:
        folder: where the model lies.
        prepared_for: what its ``config.json`` says.
        tags: the tags that were added or kept as tokens; nothing where they are text.
        rows_before, rows: of the embeddings.
        eos_ids: the model's ends of text.
        checked: what the check compared; None if it was left out.
    """

    folder: Path
    prepared_for: PreparedFor
    tags: TagTokens
    rows_before: int
    rows: int
    eos_ids: list[int]
    checked: Checked | None


def prepare(
    model: str,
    dialect: str,
    out: str | Path,
    *,
    dialect_options: dict[str, Any] | None = None,
    tags: Literal["tokens", "text"] = "tokens",
    check: bool = True,
) -> Prepared:
    """Write a model to a new folder, ready for a dialect.

    Its control tags become tokens, whose rows begin as the mean of the rows of their words. All else stays: weights in
    their dtype and shards, chat template, generation config. The folder is complete when it appears under its name.

    Args:
        model: a folder in Hugging Face layout, a GGUF file or a folder with one, or a Hub id.
        dialect, dialect_options: what the folder is for; `Session.start` takes them from it.
        out: the folder to write; it must not exist, or be empty.
        tags: ``text`` leaves the vocabulary as it is: the dialect finds its tags in the text.
        check: whether to load the result in float32 and compare the torch engine with transformers.

    Memory: the largest file of weights that holds embeddings; with ``check``, or where weights are not safetensors, the
    whole model.

    Raises:
        InputError: an unknown dialect or option, tags that must stay text, or a folder that is not empty.
        ModelError: the model cannot be read, changed or run; nothing is left behind.
    """
    out, options = Path(out).expanduser(), dialect_options or {}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{str(out)!r} is there already: give a new folder, or an empty one")
    literals = list(find(dialect).tags.values())
    source = Source.of(model)
    earlier = None if source.gguf else read_prepared(source.folder)
    tokenizer = source.tokenizer()
    if tags == "tokens":
        _refuse_text(dialect, earlier, set(literals) <= set(tokenizer.get_vocab()))
    found = add_tags(tokenizer, literals) if tags == "tokens" else TagTokens()
    bound = bind(dialect, tokenizer, **options)
    with _complete_or_nothing(out) as folder:
        source.copy(folder)
        if source.gguf or tags == "tokens":
            tokenizer.save_pretrained(folder)
        before, rows = write_rows(folder, {found.added[tag]: pieces for tag, pieces in found.words.items()})
        eos_ids = write_ends_of_text(folder, tokenizer)
        record = PreparedFor(
            dialect=dialect,
            dialect_options=options_of(bound),
            added=(
                *(earlier.added if earlier else ()),
                *(AddedToken(token=tag, id=token) for tag, token in found.added.items()),
            ),
            rows=earlier.rows if earlier else before,
        )
        _write_config(folder, record, rows)
        checked = verify(folder, dialect, options) if check else None
    return Prepared(out, record, found, before, rows, eos_ids, checked)


def _refuse_text(dialect: str, earlier: PreparedFor | None, are_tokens: bool) -> None:
    """Raise InputError where a model writes the tags as text already: new tokens would change what it writes."""
    if are_tokens:
        return
    if dialect in WRITTEN_AS_TEXT:
        raise InputError(
            f"models of dialect {dialect!r} write its tags as text, and are not to get tokens for them: use tags 'text'"
        )
    if earlier and earlier.dialect == dialect:
        raise InputError(f"this model was prepared for {dialect!r} with its tags as text; prepare the original instead")


@contextmanager
def _complete_or_nothing(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that gets its name at the end; after an error, or Ctrl-C, it is removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".{out.name}.partial"
    try:
        folder.mkdir()
    except FileExistsError:
        raise InputError(f"{str(folder)!r} is there: another prepare writes it, or a killed one left it") from None
    try:
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder)
        raise


def _write_config(folder: Path, record: PreparedFor, rows: int) -> None:
    """Write the record and the number of rows into ``config.json``; all else in it stays."""
    file = folder / "config.json"
    config = json.loads(file.read_bytes())
    of_text = config.get("text_config") or {}
    holder = of_text if "vocab_size" in of_text else config
    if not isinstance(holder.get("vocab_size"), int):
        raise ModelError("config.json has no vocab_size")
    holder["vocab_size"] = rows
    config[KEY] = record.model_dump(mode="json")
    file.write_text(json.dumps(config, indent=2) + "\n")
