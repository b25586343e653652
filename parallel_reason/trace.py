"""What one run of parallel decoding was, token by token.

A trace is a tree of threads. A thread is a list of spans; between two spans it may have forked into children. Every
node stores only the tokens it adds, so the size of a trace is linear in the tokens decoded.

Invariants, checked when a record is made:
- a sampled span has one log-prob a token (or none at all, in a trace that no engine made); other spans have none;
- a fork lies between two spans of its thread: ``0 <= at <= len(spans)``, in order;
- a child's label is its parent's label and a number: ``0`` is the root, ``0.2`` its third child, ``0.2.0`` below it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from parallel_reason.errors import TraceFileError
from parallel_reason.ledger import Ledger
from parallel_reason.noun import Noun

VERSION = 1

Origin = Literal["prompt", "sampled", "injected", "copied"]
Status = Literal["finished", "length", "cancelled", "failed"]
JoinRule = Literal["message", "relinearise", "graft"]


class Span(Noun):
    """Tokens that one thread adds between two control points.

    Attributes:
        ids: token ids, [tokens].
        origin: who wrote them: the caller, the model, or the controller; ``copied`` is what a relinearised join lays
            down once more of the tokens of its children.
        logprobs: natural-log probability of each sampled token under the engine, [tokens], or empty.
        shift: how far the first token's position lies from the next one in line; most often 0.
        drops: how many of the newest tokens the thread stops to see before this span, their positions being given out
            again: a dialect took them back, such as an end of text that a join overrules. They stay in the trace. The
            span itself may be empty.
    """

    ids: list[int]
    origin: Origin
    logprobs: list[float] = Field(default_factory=list)
    shift: int = 0
    drops: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_logprob_a_sampled_token(self) -> "Span":
        wanted = {0, len(self.ids)} if self.origin == "sampled" else {0}
        if len(self.logprobs) not in wanted:
            raise ValueError(f"a {self.origin} span of {len(self.ids)} tokens has {len(self.logprobs)} log-probs")
        return self


class Malformed(Noun):
    """A fork that the model wrote and the dialect could not read; the thread went on as plain text.

    Attributes:
        at: how many spans of the thread came before.
        reason: what was wrong, in words.
    """

    at: int
    reason: str


class Fork(Noun):
    """The place where a thread paused and its children ran.

    Attributes:
        at: how many spans of the parent came before; children see those and none later.
        join: how the results came back.
        shares_prefix: whether the children saw the parent's tokens, or only their own message.
        children: in the order in which the model wrote them.
    """

    at: int
    join: JoinRule
    shares_prefix: bool = True
    children: list["Thread"]


class Thread(Noun):
    """One line of decoding.

    Attributes:
        label: its path in the tree, and ``parent`` that of its parent (None for the root).
        spans, forks: in order; a fork's ``at`` says where it lies between the spans.
        malformed: forks that could not be read.
        status: how it ended; ``why`` says what ended it: a control token, ``limits.depth=2``, an engine's error.
        text: its own tokens as text, without the tokens that the controller added.
        prefilled_tokens: tokens it sent to the engine as context, over all its requests; ``cached_tokens`` of these
            came from the engine's prefix cache, and ``recomputed_tokens`` had been computed before by this trace.
        queued_s, running_s, waiting_s: seconds before decoding, decoding, and waiting for its children.
    """

    label: str
    parent: str | None = None
    spans: list[Span] = Field(default_factory=list)
    forks: list[Fork] = Field(default_factory=list)
    malformed: list[Malformed] = Field(default_factory=list)
    status: Status = "finished"
    why: str = ""
    text: str = ""
    prefilled_tokens: int = 0
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    queued_s: float = 0.0
    running_s: float = 0.0
    waiting_s: float = 0.0

    @model_validator(mode="after")
    def _children_are_labelled_below_it(self) -> "Thread":
        for child in (child for fork in self.forks for child in fork.children):
            above, _, number = child.label.rpartition(".")
            if child.parent != self.label or above != self.label or not number.isdecimal():
                raise ValueError(f"thread {self.label} has a child labelled {child.label} of parent {child.parent}")
        return self

    @model_validator(mode="after")
    def _forks_lie_between_spans(self) -> "Thread":
        places = [0, *(fork.at for fork in self.forks), len(self.spans)]
        if places != sorted(places):
            raise ValueError(f"thread {self.label}: forks at {places[1:-1]} of {len(self.spans)} spans")
        return self

    def walk(self) -> Iterator["Thread"]:
        """The thread and all below it, parents before children."""
        yield self
        for fork in self.forks:
            for child in fork.children:
                yield from child.walk()

    @property
    def ran(self) -> bool:
        """Whether it sampled anything; one that did not left nothing for a join to see."""
        return any(span.ids for span in self.spans if span.origin == "sampled")

    def tokens(self, origin: Origin) -> int:
        """How many of its own tokens came from ``origin``."""
        return sum(len(span.ids) for span in self.spans if span.origin == origin)


class Trace(Noun):
    """The root thread and all below it.

    Attributes:
        dialect: name of the grammar that the model wrote.
        model: what the engine was loaded from.
        text: all that the root thread wrote; ``answer`` the part the dialect holds to be the answer, or None.
        ledger: every count and time.
    """

    version: Literal[1] = 1
    dialect: str
    model: str
    prompt: str
    root: Thread
    answer: str | None = None
    ledger: Ledger = Field(default_factory=Ledger)

    @property
    def threads(self) -> list[Thread]:
        """Every thread, the root first, parents before children."""
        return list(self.root.walk())

    @property
    def text(self) -> str:
        """What the root thread wrote."""
        return self.root.text

    @property
    def status(self) -> Status:
        """How the root thread ended; ``why`` says what ended it."""
        return self.root.status

    @property
    def why(self) -> str:
        """What ended the root thread."""
        return self.root.why

    def to_json(self) -> str:
        """One line of JSON, without loss."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, line: str | bytes) -> "Trace":
        """Read what ``to_json`` wrote.

        Raises:
            TraceFileError: not JSON, another version, or a record that breaks an invariant of this module.
        """
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            raise TraceFileError(_first_problem(error)) from None


def read_traces(path: str | Path) -> Iterator[Trace]:
    """Traces from a JSONL file, one a line, blank lines passed over.

    Raises:
        TraceFileError: naming the file and the line that could not be read.
    """
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield Trace.from_json(line)
                except TraceFileError as error:
                    raise TraceFileError(f"{path}, line {number}: {error}") from None


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"not a trace of version {VERSION}: {where + ': ' if where else ''}{first['msg']}"
