"""The verifier of Countdown answers, for data, rewards and evaluations alike.

An answer is a list of steps, ``53-26=27,31-22=9,...``. It is correct if every step takes two numbers that are there (a
given number or an earlier result, each consumed once) and states their exact result, and the last result is the target
with no number left over. Nothing is evaluated as code. Results below zero and fractions are refused, as in APR.
"""

import re
from collections import Counter
from fractions import Fraction

from parallel_reason.tasks.countdown.problem import Problem

NONE_FOUND = "no"  # what the embedded model answers where its search found nothing
_STEP = re.compile(r" *([0-9]{1,9}) *([+\-*/]) *([0-9]{1,9}) *= *([0-9]{1,9}) *")


def problem_with(answer: str | None, problem: Problem) -> str | None:
    """What is wrong with an answer, in words; None if it solves the problem."""
    if not answer:
        return "no answer"
    have = Counter(problem.numbers)
    result = None
    for step in answer.split(","):
        match = _STEP.fullmatch(step)
        if not match:
            return f"{step!r} is not a step"
        a, operation, b, result = int(match[1]), match[2], int(match[3]), int(match[4])
        for number in (a, b):
            if not have[number]:
                return f"{step}: no {number} left"
            have[number] -= 1
        if _apply(a, operation, b) != result:
            return f"{step} is false"
        have[result] += 1
    if have.total() != 1:
        return f"{have.total() - 1} numbers not used"
    return None if result == problem.target else f"it makes {result}, not {problem.target}"


def solves(answer: str | None, problem: Problem) -> bool:
    """Whether an answer solves the problem."""
    return problem_with(answer, problem) is None


def verdict(answer: str, problem: Problem) -> str:
    """What to say of an answer of the embedded model: ``right``, what is wrong with it, or that there is none."""
    if answer.strip() == NONE_FOUND:
        return "no solution found"
    wrong = problem_with(answer, problem)
    return f"wrong: {wrong}" if wrong else "right"


def _apply(a: int, operation: str, b: int) -> Fraction | None:
    if operation == "/":
        return Fraction(a, b) if b else None
    return Fraction({"+": a + b, "-": a - b, "*": a * b}[operation])
