"""Plans: a graph of calls of models and tools, each dispatched the moment its inputs are there.

`Plan` is one written in Python; `run_plan` runs calls that come from anywhere, such as a planner that still writes.
"""

from parallel_reason.plans.asking import Asker
from parallel_reason.plans.call import Call, Problem
from parallel_reason.plans.graph_scores import best, rates, score
from parallel_reason.plans.hybrid_search import hybrid_search
from parallel_reason.plans.llm_compiler import llm_compiler
from parallel_reason.plans.llm_compiler_text import calls_in
from parallel_reason.plans.parallel_prompt import OverItems, ParallelPrompt, ask_each, read_parallel_prompt
from parallel_reason.plans.plan import Plan
from parallel_reason.plans.plan_over_graph import Rule, Subtask, TaskGraph, graph_calls_in, subtasks_in
from parallel_reason.plans.references import Ref, Text, text
from parallel_reason.plans.result import Outcome, PlanResult, critical_path
from parallel_reason.plans.run import PlanLimits, PlanRun, run_plan

__all__ = [
    "Asker",
    "Call",
    "Outcome",
    "OverItems",
    "ParallelPrompt",
    "Plan",
    "PlanLimits",
    "PlanResult",
    "PlanRun",
    "Problem",
    "Ref",
    "Rule",
    "Subtask",
    "TaskGraph",
    "Text",
    "ask_each",
    "best",
    "calls_in",
    "critical_path",
    "graph_calls_in",
    "hybrid_search",
    "llm_compiler",
    "rates",
    "read_parallel_prompt",
    "run_plan",
    "score",
    "subtasks_in",
    "text",
]
