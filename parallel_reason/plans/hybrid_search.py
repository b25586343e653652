"""HybridDeepSearcher (arXiv 2508.19113): a model reasons, asks for several searches at once, reads them, and goes on.

Source: dayoon-ko/HybridDeepSearcher, infer/inference.py: the tags, queries separated by ``;`` and a newline, at most 10
turns, a query that was searched before is not searched again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from parallel_reason.plans.asking import Ask, written
from parallel_reason.plans.call import Call
from parallel_reason.plans.references import shown
from parallel_reason.plans.result import PlanResult
from parallel_reason.plans.run import AnyPlanLimits, run_plan
from parallel_reason.plans.streams import closing
from parallel_reason.prompts import load

QUERIES, QUERIES_END = "<|begin_search_queries|>", "<|end_search_queries|>"
RESULTS, RESULTS_END = "<|begin_search_results|>", "<|end_search_results|>"
AGAIN = "You have searched this query. Please refer to previous results."
RESULT_CHARACTERS = 4000


@dataclass(frozen=True)
class SearchAnswer:
    """What came of a question.

    Attributes:
        text: what the model wrote after its last search; None if it still wanted to search when the turns were over.
        transcript: all that the model wrote, and the results among it.
        searches: one a turn; its calls are the queries.
    """

    text: str | None
    transcript: str
    searches: tuple[PlanResult, ...]


async def hybrid_search(
    question: str,
    ask: Ask,
    search: Callable[[str], Any],
    limits: AnyPlanLimits | None = None,
    *,
    turns: int = 10,
    prompt: str = "hybrid_search",
) -> SearchAnswer:
    """Answer a question by searching.

    Args:
        ask: continues a raw text. What it writes after the end of its queries is dropped.
        search: plain or async; a query that fails is a result that says so, and the others count.
        limits: of the searches of one turn.
        turns: searches; the model is asked once more after the last.
        prompt: the name or path of a prompt that is a text.
    """
    start = str(load(prompt).render(question))
    transcript, seen = "", set[str]()
    searches: list[PlanResult] = []
    for turn in range(turns + 1):
        reply = await _until_queries_end(ask, start + transcript)
        transcript += reply
        queries = read_queries(reply)
        if not queries:
            return SearchAnswer(reply.strip(), transcript, tuple(searches))
        if turn == turns:
            break
        new = [query for query in queries if query not in seen]
        seen.update(new)
        plan = await run_plan([Call(query, search, (query,), written=query) for query in new], limits=limits)
        searches.append(plan)
        transcript += f"\n{RESULTS}\n{_results(queries, plan)}\n{RESULTS_END}\n"
    return SearchAnswer(None, transcript, tuple(searches))


def read_queries(reply: str) -> list[str]:
    """The queries that a reply ends with, each once; none if it asks for no search."""
    _, found, said = reply.rpartition(QUERIES)
    lines = said.partition(QUERIES_END)[0].replace(";\n", "\n").splitlines() if found else []
    return list(dict.fromkeys(query for line in lines if (query := line.strip().rstrip(";").strip())))


async def _until_queries_end(ask: Ask, prompt: str) -> str:
    """What the model writes; it is stopped where its queries end."""
    reply = ""
    async with closing(written(ask, prompt)) as pieces:
        async for piece in pieces:
            reply += piece
            if QUERIES_END in reply:
                break
    kept, end, _ = reply.partition(QUERIES_END)
    return kept + end


def _results(queries: list[str], plan: PlanResult) -> str:
    said = []
    for query in queries:
        outcome = plan.outcomes.get(query)
        if outcome is None:
            result = AGAIN
        elif outcome.status == "finished":
            result = shown(outcome.value, RESULT_CHARACTERS)
        else:
            result = f"the search {outcome.status}: {outcome.reason}"
        said.append(f"{query}\n{result}")
    return "\n\n".join(said)
