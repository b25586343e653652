"""Countdown, the task of the embedded model: reach a target with given numbers, each used exactly once."""

from parallel_reason.tasks.countdown.problem import Key, Problem, draw, solvable
from parallel_reason.tasks.countdown.split import HELD_OUT, held_out, held_out_keys
from parallel_reason.tasks.countdown.verify import problem_with, solves, verdict
from parallel_reason.tasks.countdown.vocabulary import LARGEST, tokenizer

__all__ = [
    "HELD_OUT", "LARGEST", "Key", "Problem", "draw", "held_out", "held_out_keys", "problem_with", "solvable", "solves",
    "tokenizer", "verdict",
]  # fmt: skip
