"""PARALLELPROMPT's schema (arXiv 2506.18728): one instruction over many items, taken apart so that they run at once."""

import json
from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from parallel_reason.errors import InputError, first_line
from parallel_reason.plans.asking import Ask, answered
from parallel_reason.plans.call import Call
from parallel_reason.plans.result import PlanResult
from parallel_reason.plans.run import AnyPlanLimits, run_plan
from parallel_reason.record import FrozenRecord
from parallel_reason.runtime.program import ProgramThread

SLOT = "{data}"


class ParallelPrompt(FrozenRecord):
    """A prompt that is many.

    Attributes:
        category: of the data set, such as ``Translation``; nothing depends on it.
        template: what is asked of each item, which stands in place of ``{data}``.
        context: what all items have in common; may be empty.
        data: the items.
        n: how often the template is asked, if there are no items.
    """

    category: str = ""
    template: str = Field(min_length=1)
    context: str = ""
    data: tuple[str, ...] = ()
    n: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.data) == (self.n is not None):
            raise ValueError("give either data, the items, or n, how often the template is asked")
        if self.data and SLOT not in self.template:
            raise ValueError(f"the template has no {SLOT} for the items")
        return self

    @property
    def shared(self) -> str:
        """What all prompts begin with, up to a space that a tokenizer would take into the first word of an item."""
        return self._before.rstrip(" ")

    @property
    def _before(self) -> str:
        context = f"{self.context}\n\n" if self.context else ""
        return context + (self.template.partition(SLOT)[0] if self.data else self.template)

    @property
    def rests(self) -> tuple[str, ...]:
        """How each prompt goes on after `shared`, [items]. What an item says is never read as a slot."""
        if not self.data:
            return (self._before[len(self.shared) :],) * (self.n or 0)
        space = self._before[len(self.shared) :]
        return tuple(space + "".join(item + part for part in self.template.split(SLOT)[1:]) for item in self.data)


def read_parallel_prompt(fields: dict[str, object]) -> ParallelPrompt:
    """The schema as an extractor wrote it; ``data`` and ``context`` may be null.

    Raises:
        InputError: it is none.
    """
    given = {
        key: value for key, value in fields.items() if key in ParallelPrompt.model_fields and value not in (None, [])
    }
    try:
        return ParallelPrompt(**given)
    except ValidationError as error:
        raise InputError(f"no parallel prompt: {first_line(error)}") from None


async def ask_each(prompt: ParallelPrompt, ask: Ask, limits: AnyPlanLimits | None = None) -> PlanResult:
    """Ask for every item, all at once; each is a call, ``"1"`` for the first."""

    async def one(text: str) -> str:
        return await answered(ask, text)

    calls = [Call(str(k), one, (prompt.shared + rest,), written=rest) for k, rest in enumerate(prompt.rests, 1)]
    return await run_plan(calls, limits=limits)


@dataclass(frozen=True)
class OverItems:
    """The program that forks over the items of a prompt: ``llm.run(OverItems(prompt), prompt.shared)``.

    Every child shares the prefix, which is computed once, and is charged in one trace. The answer is a JSON list of
    what the children wrote, [items].

    Attributes:
        max_tokens, stop: of each child; as of `ProgramThread.sample`.
    """

    name: ClassVar[str] = "parallel_prompt"

    prompt: ParallelPrompt
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    async def __call__(self, t: ProgramThread) -> str:
        """Run it on a thread whose prompt is `ParallelPrompt.shared`."""
        items = t.fork(self.prompt.rests)
        texts = await items.sample(self.max_tokens, stop=self.stop)
        t.join(items, "message")
        return json.dumps(texts, ensure_ascii=False)
