"""From a sample to a trace, or to the reason why not: the stages of a pipeline, and the checks around them."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from parallel_reason import Trace
from parallel_reason.tasks.grading import same_integer, same_math
from rl.rewriting.draft import Draft, split_lines
from rl.rewriting.nodes import plain
from rl.rewriting.source import Sample
from rl.rewriting.stage import Pipeline, RejectionError, ReplyError, Stage, Variables, without_thinking
from rl.rewriting.store import Question, Reply, ReplyStore, StoredReply, digest
from rl.rewriting.target import Target

T = TypeVar("T")
Ask = Callable[[list[dict[str, Any]], int], Awaitable[Reply]]  # messages, and the number of the attempt from 0
Grading = Literal["math", "integer"]
GRADERS: dict[Grading, Callable[[str, str | None], bool]] = {"math": same_math, "integer": same_integer}
LONGEST = 400_000  # characters, some 100,000 tokens
_LAST_LINE = re.compile(r"(?:####|\banswer(?: is)?:?)\s*(.+?)[.\s]*$", re.IGNORECASE)


def final_answer(text: str) -> str:
    r"""Where the answer of a text is looked for: all of it if it has a ``\boxed``, else what its last line says.

    That is what follows ``####``, ``Answer:`` or ``the answer is``; without those, the last line.
    """
    if "\\boxed{" in text:
        return text
    last = text.rstrip().rpartition("\n")[2]
    found = _LAST_LINE.search(last)
    return found[1] if found else last


def distance(new: str, original: str) -> float:
    """Multiverse's distance of a rewritten text: Levenshtein's, over the longer length, 0 to 1; blanks count once."""
    from rapidfuzz.distance import Levenshtein

    texts = (" ".join(text.split()) for text in (new, original))
    return float(Levenshtein.normalized_distance(*texts))


@dataclass(frozen=True)
class Rewriter:
    """A pipeline with all that it needs.

    Attributes:
        ask: sends messages to a model.
        attempts: replies to one question at most.
        grading: of answers; samples without one are not graded.
        max_distance: see `distance`.
    """

    pipeline: Pipeline
    target: Target
    store: ReplyStore
    ask: Ask
    attempts: int = 3
    grading: Grading = "math"
    max_distance: float = 0.4

    async def trace(self, sample: Sample) -> Trace:
        """The trace of a sample.

        Raises:
            RejectionError: it has none.
            EngineError: of ``ask``.
        """
        draft = Draft(sample.problem, split_lines(sample.chain))
        await self._check_sample(sample, draft)
        for stage in self.pipeline.stages:
            draft = await self._through(stage, sample, draft)
        await self._check_rewritten(sample, plain(draft.nodes))
        answer = sample.attempt or (f"\\boxed{{{sample.answer}}}" if sample.answer is not None else "")
        return self.target.trace(sample.id, sample.problem, self.pipeline.write(draft, answer))

    async def _check_sample(self, sample: Sample, draft: Draft) -> None:
        if len(draft.lines) < 2:
            raise RejectionError("reasoning is a single line")
        if len(sample.problem) + len(sample.chain) > LONGEST:
            raise RejectionError("reasoning is too long", f"more than {LONGEST} characters")
        if tag := next((tag for tag in self.target.tags if tag in sample.chain or tag in sample.attempt), None):
            raise RejectionError("reasoning has a tag of the dialect", tag)
        if not await self._right(sample, sample.attempt or sample.chain):
            raise RejectionError("reasoning does not end in the right answer")

    async def _check_rewritten(self, sample: Sample, text: str) -> None:
        """What was right before is right still, and the text is near the original."""
        if await self._right(sample, sample.chain) and not await self._right(sample, text):
            raise RejectionError("rewritten text does not end in the right answer")
        if (far := distance(text, sample.chain)) > self.max_distance:
            raise RejectionError("rewritten text is too far from the original", f"{far:.2f}")

    async def _right(self, sample: Sample, text: str) -> bool:
        if sample.answer is None:
            return True
        return await asyncio.to_thread(GRADERS[self.grading], sample.answer, final_answer(text))

    async def _through(self, stage: Stage[T], sample: Sample, draft: Draft) -> Draft:
        """The draft after a stage."""
        asked = (self._answer(stage, sample, draft, part, one) for part, one in enumerate(stage.asks(draft)))
        values: list[T] = []
        for value in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(value, BaseException):
                raise value
            values.append(value)
        return stage.apply(draft, values)

    async def _answer(self, stage: Stage[T], sample: Sample, draft: Draft, part: int, variables: Variables) -> T:
        """What the first usable reply to a question says; replies of an earlier run come first.

        Raises:
            RejectionError: no attempt gave one.
            EngineError: of ``ask``.
        """
        messages = stage.prompt.render(sample.problem, **variables)
        assert isinstance(messages, list)  # a test holds the prompts to it
        refused: str | None = None
        for attempt in range(self.attempts):
            question = Question(sample.id, stage.name, part, attempt, digest(messages))
            known = self.store.stored.get(question)
            reply = known.reply if known else await self.ask(messages, attempt)
            refused = None
            try:
                value = self._read(stage, draft, part, reply)
            except ReplyError as error:
                refused = str(error)
            if known is None:
                self.store.add(StoredReply(**question._asdict(), refused=refused, reply=reply))
            if refused is None:
                return value
        raise RejectionError(f"{stage.name}: {refused}")

    def _read(self, stage: Stage[T], draft: Draft, part: int, reply: Reply) -> T:
        """What a reply says.

        Raises:
            ReplyError: it cannot be used.
        """
        text = without_thinking(reply.text)
        if not reply.ended:
            raise ReplyError("does not end")
        if any(tag in text for tag in self.target.tags):
            raise ReplyError("has a tag of the dialect")
        value = stage.parse(text)
        if wrong := stage.check(draft, part, value):
            raise ReplyError(wrong)
        return value
