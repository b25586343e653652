"""Tasks: problems, a strict verifier and a key, for data, rewards and evaluations alike."""

from parallel_reason.tasks.find import find
from parallel_reason.tasks.task import Task, TaskProblem

__all__ = ["Task", "TaskProblem", "find"]
