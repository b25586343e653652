"""Messages that cross from this process to vLLM's: typed, written as JSON, validated strictly where they arrive."""

from typing import Any, Self

from pydantic import ConfigDict

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
