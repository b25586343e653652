"""Messages that cross from this process to vLLM's: typed, written as JSON, validated strictly where they arrive."""

from typing import Any, Self

from pydantic import ConfigDict, Field

from parallel_reason.record import FrozenRecord


class Message(FrozenRecord):
    """A record that travels as one JSON text under a key of its own, in parameters of a vLLM request."""

    model_config = ConfigDict(strict=True)

    @classmethod
    def key(cls) -> str:
        """Under which it travels."""
        raise NotImplementedError

    def parameters(self) -> dict[str, str]:
        """The message as parameters of a vLLM request."""
        return {self.key(): self.model_dump_json()}

    @classmethod
    def read(cls, parameters: dict[str, Any] | None) -> Self | None:
        """The message in parameters, or None if they have none of this kind.

        Raises:
            pydantic.ValidationError: it is there and not valid.
        """
        text = (parameters or {}).get(cls.key())
        return None if text is None else cls.model_validate_json(text if isinstance(text, str) else "")


class SeededDraw(Message):
    """How the tokens of one vLLM request are drawn; see `Draw`.

    Attributes:
        seed: of the thread.
        first_draw: number of the request's first token in its thread.
    """

    seed: int
    first_draw: int = Field(ge=0)
    temperature: float = Field(gt=0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0, le=1)

    @classmethod
    def key(cls) -> str:
        """See `Message`."""
        return "seeded_draw"
