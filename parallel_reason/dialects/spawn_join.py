"""The ``spawn_join`` grammar: APR's spawn(msgs) and join(msg), as control tokens.

    parent:  ... <spawn>message<sep>message</spawn>        the parent pauses here
    child:   [parent's tokens] <thread>message ... <return>result</thread>
    parent:  ... </spawn><join>result<sep><none></join> ...

The runtime inserts ``<thread>message`` and ``<join>...</join>``; the model writes the rest. A child that ends without
``<return>`` has no result and comes back as ``<none>``. The parent may fork again, and so may a child.

Source: Pan et al., Learning Adaptive Parallel Reasoning with Language Models (APR), section 3. The released APR
checkpoints use plain text instead; see `apr`.
"""

from dataclasses import field
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import SkipValidation
from pydantic.dataclasses import dataclass

from parallel_reason.dialects.answers import answer_ids
from parallel_reason.dialects.base import (
    Action,
    ChildResult,
    ChildSpec,
    Continuation,
    Continue,
    Finish,
    Insert,
    Reject,
    StartFork,
    Stops,
    ThreadView,
)
from parallel_reason.dialects.form import Form
from parallel_reason.dialects.tags import Tags, control_ids
from parallel_reason.text import decode
from parallel_reason.trace.thread import JoinRule


@dataclass(frozen=True, config={"extra": "forbid"})
class SpawnJoin:
    """The grammar over token ids.

    Attributes:
        spawn, sep, spawn_end, thread, result, thread_end, join_start, none, join_end: token ids of ``tags``.
        tokenizer: of the model.
        prefix: what a child sees: the parent's tokens and its message (``shared``), or its ``message`` alone.
        join_on: when the parent goes on: after ``all`` children, or after the ``first`` that returned a result, the
            others being cancelled.
    """

    name: ClassVar[str] = "spawn_join"
    tags: ClassVar[dict[str, str]] = {
        "spawn": "<spawn>", "sep": "<sep>", "spawn_end": "</spawn>",
        "thread": "<thread>", "result": "<return>", "thread_end": "</thread>",
        "join_start": "<join>", "none": "<none>", "join_end": "</join>",
    }  # fmt: skip
    form: ClassVar[Form] = Form()

    spawn: int
    sep: int
    spawn_end: int
    thread: int
    result: int
    thread_end: int
    join_start: int
    none: int
    join_end: int
    tokenizer: SkipValidation[Any] = field(repr=False)
    prefix: Literal["shared", "message"] = "shared"
    join_on: Literal["all", "first"] = "all"

    @classmethod
    def bind(cls, tokenizer: Any, **options: Any) -> "SpawnJoin":
        """The dialect bound to a model's vocabulary.

        Raises:
            ModelError: a tag is not one token of the vocabulary.
            pydantic.ValidationError: a value that an option does not take.
        """
        return cls(**options, tokenizer=tokenizer, **control_ids(cls.name, cls.tags, tokenizer))

    @classmethod
    def joins_by(cls, **options: Any) -> JoinRule:
        """Results are inserted into the parent."""
        return "message"

    @property
    def join_rule(self) -> JoinRule:
        """The same under all options."""
        return self.joins_by()

    @property
    def shares_prefix(self) -> bool:
        """Whether children see their parent's tokens."""
        return self.prefix == "shared"

    @property
    def joins_on_first(self) -> bool:
        """Whether the first child with a result cancels the others."""
        return self.join_on == "first"

    def stops(self, depth: int) -> Stops:
        """``</spawn>``, and in a child ``</thread>``."""
        return Stops(ids=frozenset({self.spawn_end, self.thread_end} if depth else {self.spawn_end}))

    def step(self, view: ThreadView) -> Action:
        """Fork at ``</spawn>``."""
        if view.stopped_at == "start":
            return Continue()
        if view.stopped_at == "eos" or view.sampled[-1:] != [self.spawn_end]:
            return Finish()
        messages = self.read_messages(view.sampled_since_join)
        if isinstance(messages, Reject):
            return messages
        return StartFork(tuple(ChildSpec((Insert((self.thread, *message)),)) for message in messages))

    def read_messages(self, ids: list[int]) -> list[list[int]] | Reject:
        """The messages of the block that ends with the last of ``ids``; it has one ``<spawn>`` and no empty message."""
        meant = self._meant(ids[:-1])
        start = 1 + max(meant["spawn_end"], default=-1)
        opened = [place for place in meant["spawn"] if place >= start]
        if not opened:
            return Reject("</spawn> without <spawn>")
        if len(opened) > 1:
            return Reject("<spawn> within a <spawn> block")
        cuts = [opened[0], *(place for place in meant["sep"] if place > opened[0]), len(ids) - 1]
        messages = [ids[start + 1 : stop] for start, stop in pairwise(cuts)]
        if not all(messages):
            return Reject(f"message {messages.index([])} of the <spawn> block is empty")
        return messages

    def read_result(self, ids: list[int]) -> list[int] | None:
        """What a child returns: its tokens after its last ``<return>``, without ``</thread>``; None without one."""
        places = self._meant(ids)["result"]
        if not places:
            return None
        return ids[places[-1] + 1 : -1] if ids[-1] == self.thread_end else ids[places[-1] + 1 :]

    def returns(self, child: ChildResult) -> bool:
        """Whether a child wrote ``<return>`` and came to its own end."""
        return child.ended in ("stop", "eos") and bool(self._meant(child.sampled)["result"])

    @cached_property
    def _vocabulary(self) -> Tags:
        return Tags(self.tags, self.tokenizer)

    def _meant(self, ids: list[int]) -> dict[str, list[int]]:
        """The places of every tag that is not quoted, by its name."""
        places: dict[str, list[int]] = {name: [] for name in self.tags}
        for match in self._vocabulary.meant(ids):
            places[match.name].append(match.start)
        return places

    def join(self, view: ThreadView, children: list[ChildResult]) -> Continuation:
        """``<join>`` with the result of every child."""
        results: list[list[int] | None] = []
        for child in children:
            ids = child.sampled[: len(child.sampled) - (child.ended == "eos")]
            results.append(self.read_result(ids) if self.returns(child) else None)
        return Continuation((Insert(tuple(self.write_join(results))),))

    def answer(self, view: ThreadView) -> str | None:
        """All that a root sampled after its last join, forks that could not be read included."""
        return decode(self.tokenizer, answer_ids(view)).strip() or None

    def write_join(self, results: list[list[int] | None]) -> list[int]:
        """The tokens with which the parent goes on, one result for each child, in order."""
        ids = [self.join_start]
        for number, result in enumerate(results):
            ids += ([self.sep] if number else []) + ([self.none] if result is None else result)
        return [*ids, self.join_end]
