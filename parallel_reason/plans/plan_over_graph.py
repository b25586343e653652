"""Plan-over-Graph (arXiv 2502.14563): a graph of rules, and plans over it as JSON.

    graph: {"rules": [{"source": ["N1"], "target": ["N2"], "time": 3, "cost": 1}],
            "initial_source": ["N1"], "target": "N2"}
    plan:  [{"name": "Subtask1", "source": ["N1"], "target": ["N2"], "dependencies": []}]

Source: zsq259/Plan-over-Graph, template/planner and src/agent/module. A target may be one name or a list of them.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from parallel_reason.errors import InputError, first_line
from parallel_reason.plans.call import Call, Problem
from parallel_reason.plans.json_items import JsonItems
from parallel_reason.plans.references import Ref
from parallel_reason.plans.streams import closing
from parallel_reason.record import FrozenRecord

Names = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]


class Rule(FrozenRecord):
    """Makes all of ``target`` from all of ``source``."""

    source: Names
    target: Names
    time: float = Field(0, ge=0, allow_inf_nan=False)
    cost: float = Field(0, ge=0, allow_inf_nan=False)

    def fits(self, subtask: "Subtask") -> bool:
        """Whether a subtask uses and makes what this rule does, in any order."""
        return sorted(self.source) == sorted(subtask.source) and sorted(self.target) == sorted(subtask.target)


class Subtask(FrozenRecord):
    """One step of a plan."""

    name: str
    source: Names
    target: Names
    dependencies: Names = ()


class TaskGraph(FrozenRecord):
    """The rules there are, what there is at the start, and what is wanted."""

    rules: tuple[Rule, ...]
    initial_source: Names
    target: str

    @classmethod
    def from_question(cls, question: dict[str, Any]) -> "TaskGraph":
        """A graph as the data sets have it, whose other keys (``id``, ``min_time``, ``node_count``) are left out.

        Raises:
            InputError: it is none.
        """
        try:
            rules = [{key: rule[key] for key in Rule.model_fields if key in rule} for rule in question["rules"]]
            return cls(rules=rules, initial_source=question["initial_source"], target=question["target"])
        except (KeyError, TypeError) as error:
            raise InputError(f"no graph of rules: {type(error).__name__}: {first_line(error)}") from None
        except ValidationError as error:
            raise InputError(f"no graph of rules: {first_line(error)}") from None

    def rule_of(self, subtask: Subtask) -> Rule | None:
        """The first rule that a subtask follows; None if it follows none."""
        return next((rule for rule in self.rules if rule.fits(subtask)), None)


def read_subtask(item: dict[str, Any] | str) -> Subtask | Problem:
    """A subtask, or what is wrong with what stands in its place."""
    if isinstance(item, str):
        return Problem(f"no JSON: {item[:80]!r}")
    try:
        return Subtask(**{key: item[key] for key in Subtask.model_fields if key in item})
    except (ValidationError, TypeError) as error:
        return Problem(f"no subtask: {str(item)[:80]}: {first_line(error)}")


async def subtasks_in(deltas: AsyncIterable[str] | str) -> AsyncIterator[Subtask | Problem]:
    """The subtasks of a plan's text, each as soon as it is written; words and fences around them are passed over."""
    items = JsonItems()
    if isinstance(deltas, str):
        for item in items.feed(deltas):
            yield read_subtask(item)
    else:
        async with closing(deltas) as pieces:
            async for delta in pieces:
                for item in items.feed(delta):
                    yield read_subtask(item)
    if items.open:
        yield Problem("the plan's text ends within a subtask, which is left out")


async def graph_calls_in(
    deltas: AsyncIterable[str] | str, tool: str | Callable[..., Any], graph: TaskGraph | None = None
) -> AsyncIterator[Call | Problem]:
    """The subtasks of a plan's text as calls of ``tool(subtask, results)``, for `run_plan`.

    Args:
        tool: gets a `Subtask`, and what its dependencies returned, by their names.
        graph: if given, subtasks that follow no rule of it are problems and do not run, and the times of the rules say
            which calls go first where slots are scarce.
    """
    async with closing(subtasks_in(deltas)) as subtasks:
        async for subtask in subtasks:
            if isinstance(subtask, Problem):
                yield subtask
                continue
            rule = None if graph is None else graph.rule_of(subtask)
            if graph is not None and rule is None:
                yield Problem(f"{subtask.name} follows no rule of the graph: {subtask.source} to {subtask.target}")
                continue
            results = {name: Ref(name) for name in subtask.dependencies}
            duration = 1.0 if rule is None else rule.time
            yield Call(subtask.name, tool, (subtask, results), duration=duration, written=subtask.model_dump_json())
