"""What the controller asks of a dialect: pure functions over token ids. One grammar a file beside this one."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from parallel_reason.errors import ModelError
from parallel_reason.trace import JoinRule


@dataclass(frozen=True, slots=True)
class Child:
    """A child as its parent asked for it: ``header`` is what the controller writes before the child samples."""

    header: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """What a parent wrote where it forks: its children, or why it cannot be read."""

    children: tuple[Child, ...] = ()
    problem: str | None = None

    @classmethod
    def broken(cls, problem: str) -> "Block":
        """A block that names what is wrong with it."""
        return cls(problem=problem)


class Dialect(Protocol):
    """A grammar bound to one vocabulary."""

    name: ClassVar[str]
    join_rule: ClassVar[JoinRule]

    @property
    def shares_prefix(self) -> bool:
        """Whether children see their parent's tokens."""
        ...

    @property
    def joins_on_first(self) -> bool:
        """Whether the first child with a result cancels the others."""
        ...

    def stop_ids(self, depth: int) -> frozenset[int]:
        """Tokens at which a thread ``depth`` forks below the root pauses or ends."""
        ...

    def forks(self, ids: list[int]) -> bool:
        """Whether a thread's newest tokens ask for a fork."""
        ...

    def read_fork(self, ids: list[int]) -> Block:
        """The children that ``ids``, a thread's own tokens, ask for at their end."""
        ...

    def read_result(self, ids: list[int]) -> list[int] | None:
        """What a child's own sampled tokens return, or None."""
        ...

    def write_join(self, results: list[list[int] | None]) -> list[int]:
        """What the controller writes into the parent when its children have come back."""
        ...


def control_ids(dialect: str, tags: dict[str, str], tokenizer: Any) -> dict[str, Any]:
    """The id of each tag, under the tag's name.

    Raises:
        ModelError: naming the tags that are not one token of this vocabulary.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [tag for tag in tags.values() if tag not in vocabulary]
    if missing:
        raise ModelError(
            f"the tokenizer has no token for {', '.join(missing)}: dialect {dialect!r} needs them; "
            "use a model trained for it, or choose another dialect"
        )
    return {name: vocabulary[tag] for name, tag in tags.items()}
