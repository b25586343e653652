"""What a model folder says of itself: for which dialect `prepare` made it ready, and which tokens were added.

It stands under ``parallel_reason`` in the folder's ``config.json``, which transformers and vLLM leave alone. What a
model had before lies in its first ``rows`` rows, without those of ``added``, and in all other weights.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from parallel_reason.errors import ModelError, first_line
from parallel_reason.record import FrozenRecord

KEY = "parallel_reason"


class AddedToken(FrozenRecord):
    """A token that the model did not have.

    Attributes:
        token: its text.
        id: its token id, which is its row in the embeddings.
    """

    token: str
    id: int = Field(ge=0)


class PreparedFor(FrozenRecord):
    """The record in ``config.json``.

    Attributes:
        dialect, dialect_options: the grammar in which the model is meant to fork and join.
        added: the tokens that were added, by all preparations.
        rows: how many rows the embeddings of the model had before the first of them.
    """

    dialect: str
    dialect_options: dict[str, Any] = Field(default_factory=dict)
    added: tuple[AddedToken, ...] = ()
    rows: int = Field(ge=1)


def read_prepared(model: str | Path) -> PreparedFor | None:
    """The record of a model folder or Hub id; None if it has none, or if there is no such model.

    Raises:
        ModelError: the record cannot be read.
    """
    config = _config(model)
    if KEY not in config:
        return None
    try:
        return PreparedFor.model_validate(config[KEY])
    except ValidationError as error:
        where = ".".join(str(part) for part in (KEY, *error.errors()[0]["loc"]))
        raise ModelError(f"config.json of {str(model)!r}: {where}: {first_line(error)}; run prepare again") from None


def dialect_of(model: str | Path) -> tuple[str, dict[str, Any]] | None:
    """The dialect that a model folder or Hub id was prepared for, and its options; None if it was not prepared.

    Raises:
        ModelError: as `read_prepared`.
    """
    found = read_prepared(model)
    return (found.dialect, dict(found.dialect_options)) if found else None


def _config(model: str | Path) -> dict[str, Any]:
    """``config.json`` as it is; empty if there is none, which the engine that loads the model reports."""
    try:
        if Path(model).is_dir():
            config = json.loads(Path(model, "config.json").read_bytes())
        elif str(model).count("/") == 1 and not Path(model).exists():
            from transformers import PreTrainedConfig

            config, _ = PreTrainedConfig.get_config_dict(str(model))
        else:
            return {}
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
