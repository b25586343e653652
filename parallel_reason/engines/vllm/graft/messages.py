"""What a request tells the KV connector in vLLM's scheduler."""

from typing import NamedTuple, Self

from pydantic import Field, model_validator

from parallel_reason.engines.vllm.messages import Message


class PinnedTokens(NamedTuple):
    """The tokens ``start`` to ``stop`` of the blocks that are pinned under a name."""

    pin: str
    start: int
    stop: int


class Salt(NamedTuple):
    """A text that enters the hash of the block of a token, by the token's place in the sequence."""

    token: int
    text: str


class Offset(NamedTuple):
    """From this token on, rotary positions are so much lower than places in the sequence."""

    token: int
    by: int


class GraftRequest(Message):
    """What vLLM must know of a sequence that begins with KV of others, or whose KV is to be kept.

    Attributes:
        tokens: which pinned KV its first tokens are copied from, where the prefix cache does not have them.
        salts: what tells its blocks in the prefix cache from those of plain text with the same ids; by token.
        offsets: by token.
        floor: tokens below it were not computed in this order: to compute them again here would give other KV.
        pin_as: the name under which its blocks are pinned when it ends.
    """

    tokens: list[PinnedTokens] = Field(default_factory=list)
    salts: list[Salt] = Field(default_factory=list)
    offsets: list[Offset] = Field(default_factory=list)
    floor: int = Field(0, ge=0)
    pin_as: str | None = None

    @classmethod
    def key(cls) -> str:
        """See `Message`."""
        return "graft_request"

    @property
    def pinned(self) -> int:
        """How many of its first tokens are pinned."""
        return sum(part.stop - part.start for part in self.tokens)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(not 0 <= part.start < part.stop for part in self.tokens):
            raise ValueError("pinned tokens must run from a start up to a larger stop")
        if self.floor > self.pinned:
            raise ValueError(f"the floor {self.floor} must lie within the {self.pinned} pinned tokens")
        for places in ([token for token, _ in self.salts], [token for token, _ in self.offsets]):
            if places != sorted(places) or any(place < 0 for place in places):
                raise ValueError("salts and offsets must be ordered by token")
        return self


class ReleasePins(Message):
    """Pins to be released, by name."""

    names: list[str]

    @classmethod
    def key(cls) -> str:
        """See `Message`."""
        return "release_pins"
