"""Programs over plans, with models that are scripts: what they are asked, what runs when, what is bounded."""

import asyncio
import json

import pytest

from benchmarks.plans import run_virtual
from parallel_reason import EngineError, InputError
from parallel_reason.plans import (
    Asker,
    OverItems,
    ParallelPrompt,
    Plan,
    PlanLimits,
    ask_each,
    calls_in,
    hybrid_search,
    llm_compiler,
    read_parallel_prompt,
    run_plan,
    text,
)
from tests.scripted import session

HEIGHTS = {"Everest": 8849, "K2": 8611}


class Model:
    """Answers by a list; records what it was asked. With ``pace``, it streams: so many virtual seconds a character."""

    def __init__(self, *replies, pace=None):
        self.replies, self.asked, self.written = list(replies), [], 0
        if pace is not None:
            self.pace = pace
            self.stream = self._stream

    async def __call__(self, prompt):
        self.asked.append(prompt)
        return self.replies.pop(0)

    async def _stream(self, prompt):
        for char in await self(prompt):
            await asyncio.sleep(self.pace)
            self.written += 1
            yield char


def said(messages):
    return "\n".join(message["content"] for message in messages)


async def search(name: str) -> str:
    """The height of a mountain in m."""
    await asyncio.sleep(10)
    return f"{name} is {HEIGHTS[name]} m high ($1)."


PLAN = "1. search('Everest')\n2. search('K2')\n3. math('$1', '$2')\n4. join()<END_OF_PLAN>\nand more"


def test_calls_run_while_the_planner_writes_and_join_ends_it():
    planner = Model(PLAN, pace=1)
    joiner = Model("Thought: compared.\nAction: Finish(Everest (8849 m))")
    tools = {"search": search, "math": lambda *args: args}
    answer = run_virtual(llm_compiler("Which is higher?", planner, tools, joiner=joiner))
    assert answer.text == "Everest (8849 m)"
    (plan,) = answer.plans
    assert plan["3"] == ("Everest is 8849 m high ($1).", "K2 is 8611 m high ($1).")
    first_line, second_line = PLAN.index("\n"), PLAN.index("\n", PLAN.index("\n") + 1)
    assert (plan.outcomes["1"].started_s, plan.outcomes["1"].ended_s) == (first_line, first_line + 10)
    assert plan.outcomes["2"].started_s == second_line
    assert plan.outcomes["3"].started_s == max(second_line + 10, PLAN.index("\n4.") + 0)
    assert planner.written == PLAN.index("<END_OF_PLAN>")
    request = said(planner.asked[0])
    assert "1. search(name: str) -> str: The height of a mountain in m.\n2. math(*args): no description" in request
    assert "Previous Plan" not in request
    seen = said(joiner.asked[0])
    assert "1. search('Everest')\nObservation: Everest is 8849 m high ($1).\n2. search('K2')" in seen
    assert "Replan" in seen


def test_a_call_that_is_ready_does_not_wait_for_the_planners_next_item():
    """The planner thinks for 100 s before its last item; what needs call 1 starts when call 1 ends."""

    async def planner():
        yield "1. search('K2')\n2. math('$1')\n"
        await asyncio.sleep(100)
        yield "3. join()"

    plan = run_virtual(run_plan(calls_in(planner()), {"search": search, "math": lambda x: x}))
    assert plan.outcomes["2"].started_s == 10


def test_a_new_plan_refers_to_earlier_results_and_the_number_of_plans_is_bounded():
    model = Model(
        "1. search('Everest')\n2. search('nowhere')\n3. join()",
        "Thought: K2 is missing.\nAction: Replan(search K2)",
        "3. search('K2')\n4. math('$1 | $3')\n5. join()",
        "Action: Finish(done)",
    )
    answer = run_virtual(llm_compiler("Which?", model, {"search": search, "math": lambda x: x}))
    assert answer.text == "done"
    assert answer.plans[0].outcomes["2"].reason == "KeyError: 'nowhere'"
    assert answer.plans[1]["4"] == "Everest is 8849 m high ($1). | K2 is 8611 m high ($1)."
    assert [decision.replan for decision in answer.decisions] == [True, False]
    again = said(model.asked[2])
    assert "Previous Plan:\n\n1. search('Everest')\nObservation: Everest is 8849 m" in again
    assert "2. search('nowhere')\nObservation: failed: KeyError: 'nowhere'" in again
    assert again.rstrip().endswith("Thought: K2 is missing.\n\nCurrent Plan:")
    assert "Replan" not in said(model.asked[3])


@pytest.mark.parametrize("replans", [0, 2])
def test_a_joiner_that_is_never_content_gets_no_answer(replans):
    model = Model(*["1. join()", "Action: Replan(again)"] * 5)
    answer = run_virtual(llm_compiler("?", model, {}, replans=replans))
    assert answer.text is None
    assert len(answer.plans) == replans + 1


def test_searches_of_one_turn_run_at_once_and_what_fails_is_a_result_that_says_so():
    model = Model(
        "Two heights.\n<|begin_search_queries|>\nEverest;\nK2;\nAtlantis\n<|end_search_queries|> and I dream on",
        "Again.<|begin_search_queries|>K2<|end_search_queries|>",
        "  Everest.",
        pace=0,
    )
    answer = run_virtual(hybrid_search("Which is higher?", model, search))
    assert answer.text == "Everest."
    first, second = answer.searches
    assert first.wall_s == 10
    assert not second.calls
    assert answer.transcript == (
        "Two heights.\n<|begin_search_queries|>\nEverest;\nK2;\nAtlantis\n<|end_search_queries|>\n"
        "<|begin_search_results|>\nEverest\nEverest is 8849 m high ($1).\n\nK2\nK2 is 8611 m high ($1).\n\n"
        "Atlantis\nthe search failed: KeyError: 'Atlantis'\n<|end_search_results|>\n"
        "Again.<|begin_search_queries|>K2<|end_search_queries|>\n"
        "<|begin_search_results|>\nK2\nYou have searched this query. Please refer to previous results.\n"
        "<|end_search_results|>\n  Everest."
    )
    assert model.asked[1].startswith(model.asked[0] + "Two heights.")


def test_turns_are_bounded():
    query = "<|begin_search_queries|>K2<|end_search_queries|>"
    answer = run_virtual(hybrid_search("?", Model(*[query] * 9), search, turns=2))
    assert answer.text is None
    assert len(answer.searches) == 2


def test_a_parallel_prompt_is_asked_for_each_item_with_one_prefix():
    fields = {"serial": 7, "category": "Translation", "context": "Formal.", "data": ["a", "{data}"], "n": None}
    prompt = read_parallel_prompt(fields | {"template": "Translate {data} to French: {data}."})
    model = Model("un", "deux")
    result = run_virtual(ask_each(prompt, model))
    assert result.values == {"1": "un", "2": "deux"}
    assert model.asked == [
        "Formal.\n\nTranslate a to French: a.",
        "Formal.\n\nTranslate {data} to French: {data}.",
    ]
    assert all(asked.startswith(prompt.shared) for asked in model.asked)
    assert prompt.shared == "Formal.\n\nTranslate"  # the space belongs to the item
    assert ParallelPrompt(template="A haiku.", n=2).rests == ("", "")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"template": "x"}, "give either data"),
        ({"template": "x {data}", "data": ["a"], "n": 2}, "give either data"),
        ({"template": "x", "data": ["a"]}, "has no {data}"),
        ({"data": ["a"]}, "Field required"),
        ({"template": "x", "n": 0}, "greater than or equal to 1"),
        ({"template": "x {data}", "data": [3]}, "valid string"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_in_one_line(fields, says):
    with pytest.raises(InputError, match=r"^no parallel prompt: ") as raised:
        read_parallel_prompt(fields)
    assert says in str(raised.value)


# Over a session.


def test_a_session_is_asked_and_its_threads_fork_as_its_dialect_says():
    async def run():
        over = session()
        ask = Asker(over)
        plan = Plan()
        first = plan.call(ask, "Q")
        plan.call(ask, text("Q", first))
        result = await plan.run()
        pieces = [piece async for piece in ask.stream("Q")]
        return result, ask.traces, pieces

    result, traces, pieces = asyncio.run(run())
    assert result["1"] == traces[0].answer == "c"
    assert traces[1].prompt == "Qc"
    assert [len(trace.threads) for trace in traces] == [4, 4, 4]
    assert "".join(pieces) == traces[2].text


def test_a_planner_over_a_session_is_stopped_at_join_and_its_kv_is_freed():
    async def run():
        over = session({"0": ["ab" * 20_000]}, dialect="none")
        ask = Asker(over)
        async for _ in ask.stream("Q"):
            break
        await asyncio.sleep(0.05)
        return ask.traces, await over.kv_is_free(), [output.finish_reason for output in over.engine.outputs]

    traces, free, ended = asyncio.run(run())
    assert free
    assert not traces
    assert ended == ["abort"]


def test_a_trace_that_fails_is_the_failure_of_its_call():
    def no_luck(request, sampled):
        raise RuntimeError("no luck")

    async def run():
        over = session()
        over.engine._next_tokens = no_luck
        ask = Asker(over)
        with pytest.raises(EngineError, match=r"the model's trace failed: .*no luck"):
            await ask("Q")
        plan = Plan()
        plan.call(ask, text(plan.call(ask, "Q")))
        return await plan.run(PlanLimits(at_once=1))

    result = asyncio.run(run())
    assert [each.status for each in result.outcomes.values()] == ["failed", "skipped"]


def test_a_parallel_prompt_forks_over_its_items():
    prompt = ParallelPrompt(template="ab{data}c", data=("x", "yy"), context="")
    over = session({"0.0": ["r<eos>"], "0.1": ["ss<eos>"]})
    [trace] = asyncio.run(over.run_program(OverItems(prompt, max_tokens=5), prompt.shared))
    assert json.loads(trace.answer) == ["r", "ss"]
    assert trace.dialect == "program:parallel_prompt"
    assert trace.prompt == "ab"
    headers = [over.engine.tokenizer.decode(thread.spans[0].ids) for thread in trace.threads[1:]]
    assert headers == ["xc", "yyc"]
    assert trace.ledger.critical_path_tokens == 3  # of the longer child, with its end of text
    assert asyncio.run(over.kv_is_free())


def test_a_plan_within_a_program_is_charged_in_its_trace():
    async def planned(t):
        plan = Plan()
        first = plan.call(t.ask, "q", max_tokens=4)
        second = plan.call(t.ask, "p", max_tokens=4)
        both = plan.call("".join, [first, second])
        return (await plan.run())[both]

    over = session({"0.0": ["rs<eos>"], "0.1": ["t<eos>"]})
    over.engine.tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    [trace] = asyncio.run(over.run_program(planned, "Q"))
    assert trace.answer == "rst"
    assert trace.ledger.sampled_tokens == 5
    assert len(trace.threads) == 3
