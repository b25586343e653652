"""What one run of parallel decoding was, token by token, and how it was made.

A trace is a list of threads, the root first: nesting is bounded by memory alone.

Invariants, checked when a record is made:
- a thread stands after its parent, in the children of exactly one of its parent's forks;
- a child's label is its parent's label and a number: ``0`` is the root, ``0.2`` its third child, ``0.2.0`` below it.
"""

import uuid
from importlib import import_module
from typing import Any, Literal

from pydantic import Field, model_validator

from parallel_reason.limits import Limits
from parallel_reason.record import Record
from parallel_reason.sampling import SamplingParams
from parallel_reason.trace.ledger import Ledger
from parallel_reason.trace.thread import Fork, Status, Thread
from parallel_reason.trace.transcript import transcript

LogprobsMode = Literal["raw_logprobs", "processed_logprobs"]
Message = dict[str, Any]


class Trace(Record):
    """All threads of one run, and the circumstances under which it was made.

    Attributes:
        id: unique to this trace.
        task: the caller's key of the problem, or None.
        prompt_index, sample: which prompt of the call, and which of the samples of that prompt.
        group: the same for all samples of one prompt of one call.
        prompt, prompt_ids: what the root begins with, as text and as token ids; ``messages`` are the chat messages that
            it was rendered from.
        sampling, limits: of the run, with what single threads have of their own; None in a trace that no engine made.
        dialect, dialect_options: the grammar that forked and joined.
        engine, model, versions: what decoded, what it was loaded from, and the version of each package.
        logprobs_mode: which distribution log-probs are of, under vLLM's names: ``raw_logprobs`` are of the model at
            temperature 1 without truncation, so that with the parameters of a thread, ``sampling.of(label)``, the
            behaviour policy can be computed.
        started_at: Unix time at which it started; all other times are seconds since then, on a monotonic clock.
        threads: the root first, depth first, so parents before children.
        answer: the part of the root's text that is the answer; None if the root did not finish.
        errors: what was raised while it ran, as ``Type: message``.
        ledger: every count and time.
    """

    version: Literal[2] = 2
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    task: str | None = None
    prompt_index: int = 0
    sample: int = 0
    group: str | None = None
    prompt: str
    prompt_ids: list[int] = Field(default_factory=list)
    messages: list[Message] | None = None
    sampling: SamplingParams | None = None
    limits: Limits | None = None
    dialect: str
    dialect_options: dict[str, Any] = Field(default_factory=dict)
    engine: str = ""
    model: str
    versions: dict[str, str] = Field(default_factory=dict)
    logprobs_mode: LogprobsMode = "raw_logprobs"
    started_at: float | None = None
    threads: list[Thread] = Field(min_length=1)
    answer: str | None = None
    errors: list[str] = Field(default_factory=list)
    ledger: Ledger = Field(default_factory=Ledger)

    @model_validator(mode="after")
    def _threads_are_one_tree(self) -> "Trace":
        parents: dict[int, int] = {}
        labels: set[str] = set()
        for number, thread in enumerate(self.threads):
            labels.add(thread.label)
            for child in (child for fork in thread.forks for child in fork.children):
                if not number < child < len(self.threads) or child in parents:
                    raise ValueError(f"thread {thread.label} has child {child}, which is not a thread of its own below")
                parents[child] = number
        for number, thread in enumerate(self.threads):
            if thread.parent != parents.get(number) or (number > 0) != (number in parents):
                raise ValueError(f"thread {thread.label} of parent {thread.parent} is in no fork of that parent")
            above, _, own = thread.label.rpartition(".")
            if above != (self.threads[parents[number]].label if number else "") or not own.isdecimal():
                raise ValueError(f"thread {number} is labelled {thread.label}, which is not below its parent's label")
        if len(labels) < len(self.threads):
            raise ValueError("two threads have one label")
        return self

    @property
    def root(self) -> Thread:
        """The first thread."""
        return self.threads[0]

    def children(self, fork: Fork) -> list[Thread]:
        """The threads of a fork."""
        return [self.threads[child] for child in fork.children]

    def thread(self, label: str) -> Thread:
        """The thread with a label; raises KeyError if there is none."""
        for thread in self.threads:
            if thread.label == label:
                return thread
        raise KeyError(label)

    @property
    def text(self) -> str:
        """What the root thread wrote."""
        return self.root.text

    @property
    def status(self) -> Status:
        """How the root thread ended; ``stop_reason`` says what ended it."""
        return self.root.status

    @property
    def stop_reason(self) -> str:
        """What ended the root thread."""
        return self.root.stop_reason

    def transcript(self, tokenizer: Any) -> str:
        """The whole trace as people read it, control tokens and all that the runtime wrote among it.

        Every block is one thread's text from its start or a fork to its next fork or its end, after its label; children
        stand below the place where they forked, indented. A thread that did not finish says why. What a dialect took
        back, and what a relinearised join copied, is left out.
        """
        return transcript(self.threads, tokenizer)

    def to_json(self) -> str:
        """One line of JSON, without loss; `from_json` of `parallel_reason.trace` reads it back."""
        return self.model_dump_json()

    def _repr_html_(self) -> str:
        """What a notebook shows: its timeline and text. Records know no viewer: the package names it."""
        html: str = import_module("parallel_reason").trace_html(self)
        return html

    def __repr__(self) -> str:
        """One short line; ``to_json`` has everything."""
        return (
            f"Trace(id={self.id!r}, prompt={self.prompt[:40]!r}, status={self.status!r}, answer={self.answer!r:.60}, "
            f"threads={len(self.threads)}, sampled_tokens={self.ledger.sampled_tokens})"
        )

    __str__ = __repr__
