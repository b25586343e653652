"""Grading of what a model wrote: in processes that are killed when they take too long, never in this one.

The graders of math-verify and of reasoning-gym parse model text with sympy, which ``9**9**9`` keeps busy for ever.
"""

import atexit
import logging
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
_DEGREES = re.compile(r"\s*(\^\s*(\\circ|\{\s*\\circ\s*\})|\\degree|\u00b0|\\?%)$")
_IN_TEXT = re.compile(r"\\(?:text|mathrm|mathbf)\{([^{}]*)\}")
_NAME = re.compile(r"^\\?[A-Za-z]{1,6}\s*=\s*")
_UNITS = re.compile(r"\s*\\(text|mathrm)\{\s*[A-Za-z][A-Za-z ]*\}$")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")
_STATED_LETTER = re.compile(r"[Aa]nswer(?:\s+is)?\s*:?\s*\$?\(?([A-Z])\b")


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


def integer(answer: str | None) -> int | None:
    """The integer that an answer is: ASCII digits; leading zeros, ``n =``, degrees and units are allowed."""
    found = boxed(answer)
    if found is None:
        return None
    for part in (_DEGREES, _UNITS, _NAME):
        found = part.sub("", found.strip("$ .").removeprefix("\\$"), count=1)
    in_text = _IN_TEXT.fullmatch(found)
    found = (in_text[1] if in_text else found).strip("$ ")
    return int(found) if _INTEGER.fullmatch(found) else None


def same_integer(reference: str, answer: str | None) -> bool:
    """Whether an answer is the integer ``reference``."""
    found = integer(answer)
    return found is not None and found == integer(reference)


def letter(answer: str | None) -> str | None:
    """The choice that an answer names: the letter in its box, or of its last ``Answer: B``; None if there is none."""
    boxed_letter = _LETTER.fullmatch((boxed(answer) or "").removeprefix("\\text{").removesuffix("}").strip("$ "))
    if boxed_letter:
        return boxed_letter[1].upper()
    stated = _STATED_LETTER.findall((answer or "")[-SEARCHED:])
    return stated[-1].upper() if stated else None


def same_letter(reference: str, answer: str | None) -> bool:
    """Whether an answer names the choice ``reference``."""
    return letter(answer) == reference


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

    logging.getLogger("math_verify").setLevel(
        logging.ERROR
    )  # it warns of every call that it has no time limit of its own
    gold, found = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (reference, answer))
    return bool(verify(gold, found, timeout_seconds=None))
