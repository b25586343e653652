"""LLMCompiler (arXiv 2312.04511): a planner's calls run while it writes; a joiner answers or asks for a new plan."""

import inspect
import re
from dataclasses import dataclass

from parallel_reason.plans.asking import Ask, answered, written
from parallel_reason.plans.brackets import Brackets
from parallel_reason.plans.llm_compiler_text import calls_in
from parallel_reason.plans.references import shown
from parallel_reason.plans.result import PlanResult
from parallel_reason.plans.run import AnyPlanLimits, Tools, run_plan
from parallel_reason.prompts import load

ACTION = re.compile(r"\bAction:\s*(Finish|Replan)\s*\(")
NEXT = re.compile(r"\n\s*(?:Thought:|Action:|Question:|###)")  # where a reply that goes on has left its action
OBSERVATION_CHARACTERS = 4000


@dataclass(frozen=True)
class Decision:
    """What a joiner decided: an answer, or why a new plan is needed."""

    replan: bool
    text: str
    thought: str = ""


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        text: the answer; None if the plans that were allowed did not lead to one.
        plans: what became of each plan.
        decisions: of the joiner, one a plan.
    """

    text: str | None
    plans: tuple[PlanResult, ...]
    decisions: tuple[Decision, ...]


async def llm_compiler(
    question: str,
    ask: Ask,
    tools: Tools,
    limits: AnyPlanLimits | None = None,
    *,
    joiner: Ask | None = None,
    replans: int = 1,
    planner_prompt: str = "llm_compiler_planner",
    joiner_prompt: str = "llm_compiler_joiner",
    examples: str = "",
) -> Answer:
    """Answer a question with tools.

    Args:
        ask: the planner; if it streams (see `written`), calls start while it writes.
        tools: name to function; their signatures and docstrings are what the planner reads.
        limits: of each plan.
        joiner: who looks at the results; ``ask`` if None.
        replans: new plans after the first. Calls of a new plan may refer to results of earlier ones by number.
        planner_prompt, joiner_prompt: names or paths of prompts; see docs/prompts.md.
        examples: questions with plans, as published ones are, for the planner's prompt.
    """
    planner, judge = load(planner_prompt), load(joiner_prompt)
    plans: list[PlanResult] = []
    decisions: list[Decision] = []
    known: dict[str, object] = {}
    previous = ""
    for left in range(replans, -1, -1):
        request = planner.render(question, tools=described_tools(tools), examples=examples, previous=previous)
        plan = await run_plan(calls_in(written(ask, request)), tools, limits, known=known)
        plans.append(plan)
        known |= plan.values
        seen = observations(plan)
        reply = await answered(joiner or ask, judge.render(question, observations=seen, replan="yes" if left else ""))
        decisions.append(decision := read_decision(reply))
        if not decision.replan:
            return Answer(decision.text, tuple(plans), tuple(decisions))
        previous += f"Previous Plan:\n\n{seen}\nThought: {decision.thought or decision.text}\n\n"
    return Answer(None, tuple(plans), tuple(decisions))


def read_decision(reply: str) -> Decision:
    """What a joiner's reply says; one without an action is itself the answer.

    The text between the brackets goes to the bracket that closes it at the end of a line, or else to the last one: an
    answer may have brackets of its own, and lines.
    """
    match = ACTION.search(reply)
    if match is None:
        return Decision(False, reply.strip())
    thought = reply[: match.start()].strip().removeprefix("Thought:").strip()
    rest = reply[match.end() :]
    after = NEXT.search(rest)
    rest = (rest if after is None else rest[: after.start()]).rstrip()
    return Decision(match[1] == "Replan", rest[: _end(rest)].strip(), thought)


def observations(plan: PlanResult) -> str:
    """The calls of a plan, each with what it returned or why it did not, as a joiner reads them."""
    lines = []
    for name, call in plan.calls.items():
        outcome = plan.outcomes[name]
        said = outcome.value if outcome.status == "finished" else f"{outcome.status}: {outcome.reason}"
        lines.append(f"{call.written or name}\nObservation: {shown(said, OBSERVATION_CHARACTERS)}")
    return "\n".join([*lines, *(f"Problem: {problem}" for problem in plan.problems)])


def described_tools(tools: Tools) -> str:
    """What a planner must know of the tools: names, parameters and docstrings."""
    lines = []
    for number, (name, function) in enumerate(tools.items(), 1):
        try:
            signature = str(inspect.signature(function))
        except (TypeError, ValueError):  # a function of C that says nothing
            signature = "(...)"
        lines.append(f"{number}. {name}{signature}: {inspect.getdoc(function) or 'no description'}")
    return "\n".join(lines)


def _end(rest: str) -> int:
    """Where the text of an action ends."""
    brackets = Brackets(quotes=False)
    brackets.feed("(")
    for place, char in enumerate(rest):
        brackets.feed(char)
        if not brackets.open:
            line = rest[place + 1 :].partition("\n")[0].strip()
            if not line:
                return place
            break
    return rest.rindex(")") if ")" in rest else len(rest)
