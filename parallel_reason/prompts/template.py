"""`PromptTemplate`: one prompt as its file says it."""

from typing import Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from parallel_reason.errors import InputError
from parallel_reason.prompts import language
from parallel_reason.record import FrozenRecord

PROBLEM = "problem"
Value = str | int | float | list[str]


class Turn(FrozenRecord):
    """One message of a conversation; ``content`` may hold variables."""

    role: Literal["user", "assistant"]
    content: str


class PromptTemplate(FrozenRecord):
    """A prompt with variables: a raw text, or messages for the chat template of a model.

    Attributes:
        name: of the file.
        version: grows with every change of what is said.
        dialect: the grammar that it makes a model write; None if it suits all.
        description: what it is, in one line.
        source: where it was published, or that it was written here.
        example: a problem to show it with.
        variables: those beside ``problem`` that have a default. Any other name that stands in the texts must be given.
        text: a raw text, which is sent without a chat template.
        system: the system prompt; without one, the chat template may put in its own.
        messages: the conversation; the last message is the user's.
        suffix: how the reply begins, after what the chat template writes before a reply.
        chat_template_kwargs: variables of the chat template, such as ``enable_thinking``.
    """

    name: str
    version: int = Field(ge=1)
    dialect: str | None = None
    description: str
    source: str
    example: str
    variables: dict[str, Value] = Field(default_factory=dict)
    text: str | None = None
    system: str | None = None
    messages: tuple[Turn, ...] = ()
    suffix: str = ""
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what no renderer could make a prompt of."""
        if (self.text is None) != bool(self.messages):
            raise InputError(f"prompt {self.name!r} needs either a text or messages")
        if self.text is not None and (self.system is not None or self.suffix or self.chat_template_kwargs):
            raise InputError(
                f"prompt {self.name!r}: system, suffix and chat_template_kwargs go with messages, not a text"
            )
        if self.messages and self.messages[-1].role != "user":
            raise InputError(f"prompt {self.name!r}: the last message must be the user's")
        used = self._used()
        unused = next((name for name in (PROBLEM, *self.variables) if name not in used), None)
        if unused is not None:
            raise InputError(f"prompt {self.name!r} does not use its variable {unused!r}")
        if PROBLEM in self.variables:
            raise InputError(f"prompt {self.name!r}: {PROBLEM!r} is always given and has no default")
        return self

    @property
    def required(self) -> list[str]:
        """The variables that must be given, beside the problem."""
        return sorted(self._used() - {PROBLEM, *self.variables})

    def render(self, /, problem: str, **variables: Value) -> str | list[dict[str, Any]]:
        """The raw text, or the chat messages, with a problem put in.

        Args:
            problem: what the model is asked.
            variables: those of the file; the defaults of the file for the others.

        Raises:
            InputError: a variable is missing, unknown or of another type, or the problem is no text.
        """
        if not isinstance(problem, str):
            raise InputError(f"prompt {self.name!r} takes a problem as a text, not {problem!r:.60}")
        self._check_names(variables)
        values = {**self.variables, **variables, PROBLEM: problem}
        if self.text is not None:
            return self._rendered(self.text, values)
        said = [("system", self.system)] if self.system is not None else []
        said += [(turn.role, turn.content) for turn in self.messages]
        return [{"role": role, "content": self._rendered(content, values)} for role, content in said]

    def _check_names(self, given: dict[str, Value]) -> None:
        known = [*self.variables, *self.required]
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            has = f"it has {', '.join(known)}" if known else "it has none beside the problem"
            raise InputError(f"prompt {self.name!r} has no variable {unknown!r}; {has}")
        missing = [name for name in self.required if name not in given]
        if missing:
            raise InputError(f"prompt {self.name!r} needs {', '.join(missing)}")
        wrong = next((name for name, value in given.items() if not isinstance(value, str | int | float | list)), None)
        if wrong is not None:
            raise InputError(f"prompt {self.name!r}: {wrong} is {given[wrong]!r:.60}; give a text, a number or a list")

    def _rendered(self, source: str, values: dict[str, Value]) -> str:
        try:
            return language.render(source, values)
        except InputError as error:
            raise InputError(f"prompt {self.name!r}: {error}") from None

    def _used(self) -> set[str]:
        """The names of all variables in its texts."""
        sources = [self.text, self.system, *(turn.content for turn in self.messages)]
        try:
            return {name for source in sources if source is not None for name in language.variables_of(source)}
        except InputError as error:
            raise InputError(f"prompt {self.name!r}: {error}") from None
