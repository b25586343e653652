"""Evaluations: problems of a task run into a folder that can be resumed, their figures, and runs compared.

from parallel_reason import ParallelLLM
from parallel_reason.evaluation import compare, evaluate, make_plan, read_run

with ParallelLLM() as llm:
plan = make_plan("countdown", llm.dialect.name, problems=100)
print(evaluate(llm, plan, "runs/countdown").accuracy)
"""

from parallel_reason.evaluation.compare import Comparison, compare
from parallel_reason.evaluation.figures import Figures, figures
from parallel_reason.evaluation.plan import Plan, make_plan
from parallel_reason.evaluation.run import evaluate
from parallel_reason.evaluation.run_folder import RunFolder, read_run
from parallel_reason.evaluation.sample import Sample
from parallel_reason.evaluation.settings import RunSettings

__all__ = [
    "Comparison", "Figures", "Plan", "RunFolder", "RunSettings", "Sample", "compare", "evaluate", "figures",
    "make_plan", "read_run",
]  # fmt: skip
