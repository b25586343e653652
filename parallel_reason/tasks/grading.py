"""Grading of what a model wrote: in processes that are killed when they take too long, never in this one.

The graders of math-verify and of reasoning-gym parse model text with sympy, which ``9**9**9`` keeps busy for ever.
"""

import atexit
import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

from parallel_reason.errors import InputError

if TYPE_CHECKING:
    from pebble import ProcessPool

T = TypeVar("T")
SECONDS = 10.0  # for one answer; the first one of a process imports sympy as well
LONGEST_ANSWER = 1000  # characters
SEARCHED = 20_000  # characters at the end of a text in which its answer is looked for
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


def boxed(text: str | None) -> str | None:
    r"""The answer in a text: what the last ``\boxed{...}`` holds, or a text of one short line itself; None if neither.

    Takes linear time, however long the text is.
    """
    if text is None:
        return None
    text = text[-SEARCHED:]
    _, found, rest = text.rpartition("\\boxed{")
    if not found:
        short = text.strip()
        return short if 0 < len(short) <= 100 and "\n" not in short else None
    depth = 1
    for place, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[:place].strip() if 0 < place <= LONGEST_ANSWER else None
    return None


def check_installed(*packages: str) -> None:
    """Raise InputError if a grader's packages are not there: in its own process nobody would see that."""
    missing = [package for package in ("pebble", *packages) if find_spec(package) is None]
    if missing:
        raise InputError(f"grading needs {' and '.join(missing)}; install parallel-reason[tasks,gym]")


def same_integer(reference: str, answer: str | None) -> bool:
    """Whether an answer is the integer ``reference``, as AIME counts it: ASCII digits, leading zeros allowed."""
    found = boxed(answer)
    if found is None:
        return False
    found = found.strip("$ .")
    return _INTEGER.fullmatch(found) is not None and int(found) == int(reference)


def same_math(reference: str, answer: str | None, seconds: float = SECONDS) -> bool:
    """Whether math-verify finds an answer equal to ``reference``; one that takes too long is not."""
    found = boxed(answer)
    return found is not None and bool(graded(_verify, reference, found, seconds=seconds))


def graded(grade: Callable[..., float], *arguments: Any, seconds: float = SECONDS) -> float:
    """What ``grade`` says in a process of its own, or 0 if that takes too long, raises, or the process dies.

    Args:
        grade: a function of a module.
        arguments: picklable.
    """
    try:
        return float(apart(grade, *arguments, seconds=seconds))
    except Exception:  # out of time, or whatever another package's grader raises of a model's text: it is wrong
        return 0.0


def apart(function: Callable[..., T], *arguments: Any, seconds: float) -> T:
    """What a function says in a process of its own, which is killed when it takes too long.

    Args:
        function: of a module.
        arguments: picklable, as is what it returns.

    Raises:
        TimeoutError: it took longer than ``seconds``.
        Exception: what the function raised, or that its process died.
    """
    result: T = _pool().schedule(function, args=arguments, timeout=seconds).result()
    return result


@cache
def _pool() -> "ProcessPool":
    """Two processes that grade; a process that is killed is replaced."""
    from pebble import ProcessPool

    pool = ProcessPool(max_workers=2, context=get_context("spawn"))
    atexit.register(pool.stop)
    return pool


def _verify(reference: str, answer: str) -> bool:
    from math_verify import parse, verify

    gold, found = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (reference, answer))
    return bool(verify(gold, found, timeout_seconds=None))
