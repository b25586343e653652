"""What a pipeline is made of: stages, each one prompt file, a parser of the reply and a check; all of it pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from parallel_reason.prompts import PromptTemplate, load
from rl.rewriting.draft import Draft

T = TypeVar("T")
Variables = dict[str, Any]
PROMPTS = Path(__file__).parent / "prompts"


class ReplyError(Exception):
    """A reply that cannot be read; the model is asked again."""


class RejectionError(Exception):
    """A sample that cannot become a trace; ``detail`` says what is particular to it, such as numbers."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """A reason is worded alike for all samples, so that they can be counted by it."""
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Stage(Generic[T]):
    """One kind of question, asked as often as the draft needs.

    Attributes:
        name: of its prompt, a file of `PROMPTS`.
        asks: the variables of each prompt, besides the problem; none if there is nothing to ask.
        parse: what a reply says; raises `ReplyError` if it cannot be read.
        check: what is wrong with the reply to prompt number ``i``, in words without numbers; None if it can be used.
        apply: the draft with what the replies say, one for each prompt; raises `RejectionError` if that ends it.
    """

    name: str
    asks: Callable[[Draft], Sequence[Variables]]
    parse: Callable[[str], T]
    check: Callable[[Draft, int, T], str | None]
    apply: Callable[[Draft, list[T]], Draft]

    @cached_property
    def prompt(self) -> PromptTemplate:
        """The prompt file.

        Raises:
            InputError: it cannot be used.
        """
        return load(PROMPTS / f"{self.name}.toml")


@dataclass(frozen=True)
class Pipeline:
    """A way to rewrite.

    Attributes:
        dialect: that is written; also its name, and that of the prompt under which the traces are trained.
        stages: in order.
        write: the training text of a draft that went through all of them, and of the answer after the reasoning.
    """

    dialect: str
    write: Callable[[Draft, str], str]
    stages: Sequence[Stage[Any]] = field(default=())


def last_lines(text: str, count: int) -> str:
    """The end of a text, for a prompt."""
    return "\n".join(text.rstrip().splitlines()[-count:])


def without_thinking(reply: str) -> str:
    """A reply of a reasoning model without its reasoning, and of a fenced one what is in the fence."""
    text = reply.rpartition("</think>")[2].strip()
    lines = text.splitlines()
    if len(lines) > 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        text = "\n".join(lines[1:-1])
    return text.strip()
