"""Countdown, the task of the embedded model: reach a target with given numbers, each used exactly once."""

from parallel_reason.countdown.problem import Problem, draw, held_out, solvable
from parallel_reason.countdown.verify import problem_with, solves

__all__ = ["Problem", "draw", "held_out", "problem_with", "solvable", "solves"]
