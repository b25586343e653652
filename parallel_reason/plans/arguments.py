"""Arguments as a planner writes them, read as literals and references. Nothing is ever evaluated."""

import ast
import re
import warnings
from typing import Any

from parallel_reason.plans.brackets import Brackets
from parallel_reason.plans.references import WRITTEN, Ref, with_references

NAMES = {"true": True, "false": False, "null": None}  # of JSON
PLACEHOLDER = re.compile(r"__result_(\d+)")
QUOTES = "\"'"


class _NoLiteralError(ValueError):
    """A text that is no literal."""


def arguments(written: str, before: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments of a call, from what stands between its brackets.

    Literals of Python, ``true``, ``false`` and ``null``, and references: ``$1``, ``${1}``, ``$1["title"]``, and ``$1``
    within a text. What is nothing of that is one text, as LLMCompiler takes ``search(Arthur's Magazine)``.

    Args:
        before: the number of the call; see `with_references`.
    """
    if not written.strip():
        return (), {}
    try:
        node = _parsed(f"f({_with_placeholders(written, before)})")
        if not isinstance(node, ast.Call):
            raise _NoLiteralError
        args = tuple(_value(arg, before) for arg in node.args)
        kwargs = {keyword.arg: _value(keyword.value, before) for keyword in node.keywords if keyword.arg is not None}
        if len(kwargs) < len(node.keywords):
            raise _NoLiteralError
    except _NoLiteralError:
        text = written.strip()
        quoted = len(text) > 1 and text[0] in QUOTES and text[0] == text[-1]
        return (with_references(text[1:-1] if quoted else text, before),), {}
    return args, kwargs


def literal(written: str) -> Any:
    """A literal of Python or JSON, without references.

    Raises:
        ValueError: it is none.
    """
    return _value(_parsed(written.strip()), 0)


def _parsed(expression: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know
        try:
            return ast.parse(expression, mode="eval").body
        except (
            SyntaxError,
            ValueError,
            RecursionError,
            MemoryError,
        ) as error:  # no Python, a NUL, or nested without end
            raise _NoLiteralError("no literal") from error


def _with_placeholders(written: str, before: int) -> str:
    """References outside strings as names that Python can parse."""

    def named(match: re.Match[str]) -> str:
        braced, plain = match.groups()
        return match[0] if plain is not None and int(plain) >= before else f"__result_{int(braced or plain)}"

    found, start, brackets = [], 0, Brackets()
    for end, char in enumerate(written):
        quoted = brackets.quote is not None
        brackets.feed(char)
        if quoted != (brackets.quote is not None):
            found.append(written[start:end] if quoted else WRITTEN.sub(named, written[start:end]))
            start = end
    rest = written[start:]
    return "".join([*found, rest if brackets.quote is not None else WRITTEN.sub(named, rest)])


def _value(node: ast.expr, before: int) -> Any:
    try:
        return _converted(node, before)
    except (TypeError, RecursionError) as error:  # a list in a set, or nested without end
        raise _NoLiteralError("no literal") from error


def _converted(node: ast.expr, before: int) -> Any:
    match node:
        case ast.Constant(value=str(text)):
            return with_references(text, before) if before else text
        case ast.Constant(value=bool() | int() | float() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.UnaryOp(op=ast.UAdd(), operand=ast.Constant(value=int() | float() as number)):
            return number
        case ast.List(elts=items):
            return [_converted(item, before) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_converted(item, before) for item in items)
        case ast.Set(elts=items):
            return {_converted(item, before) for item in items}
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {_converted(_given(key), before): _converted(value, before) for key, value in pairs}
        case ast.Name(id=name) if name in NAMES:
            return NAMES[name]
        case ast.Name(id=name) if before and (match_ := PLACEHOLDER.fullmatch(name)):
            return Ref(match_[1])
        case ast.Subscript(value=value, slice=ast.Constant(value=str() | int() as key)):
            ref = _converted(value, before)
            if isinstance(ref, Ref):
                return ref[key]
    raise _NoLiteralError("no literal")


def _given(key: ast.expr | None) -> ast.expr:
    if key is None:  # {**other}
        raise _NoLiteralError("no literal")
    return key
